package main

import (
	"context"
	"fmt"
	"io"
	"strings"
	"time"

	"github.com/spf13/cobra"

	"github.com/sluice-platform/sluice/api"
	"github.com/sluice-platform/sluice/internal/disk"
	"github.com/sluice-platform/sluice/internal/disk/attachment"
	"github.com/sluice-platform/sluice/internal/disk/format"
	"github.com/sluice-platform/sluice/internal/disk/host"
	"github.com/sluice-platform/sluice/internal/x/errs"
)

func newDiskInfoCommand(d *deps) *cobra.Command {
	var machine string
	cmd := &cobra.Command{
		Use:     "info URL | --machine MACHINE",
		Short:   "Show a disk's head, checkpoints, forks and size in the store",
		Long:    "Show a disk's head, checkpoints, forks and size in the store." + exitTable,
		Example: "  sluice disk info s3://bucket/prefix/disks/01f3a4b5c6d7e8\n  sluice disk info --machine web-1",
		Args:    urlOrMachine(&machine, 1),
		RunE: func(cmd *cobra.Command, args []string) error {
			info, err := d.diskInfo(cmd.Context(), machine, args)
			if err != nil {
				return err
			}
			return d.result(info, func(w io.Writer) error { return printDisk(w, info) })
		},
	}
	addMachineFlag(cmd, &machine)
	return cmd
}

// localDisk is a disk and its attachments on this host.
type localDisk struct {
	api.DiskInfo
	Attachments []localAttachment `json:"attachments,omitempty"`
	Pins        []diskPin         `json:"pins,omitempty"`
	Log         *disk.LogDetails  `json:"log,omitempty"` // what is in the log store
	// LogError is why the log store could not be asked.
	LogError string `json:"log_error,omitempty"`
	// StoreError is why the store could not be asked; then all else is what attachments of this
	// host say.
	StoreError string `json:"store_error,omitempty"`
}

type localAttachment struct {
	attachment.Record
	// who does flushes: store or journal; of writers that answer
	Acknowledges string `json:"acknowledges,omitempty"`
	// of those, if their store doesn't do what they ask for
	Stall *disk.Stall `json:"stall,omitempty"`
}

func (d *deps) diskInfo(ctx context.Context, machine string, args []string) (localDisk, error) {
	if machine != "" {
		info, err := d.attachedDiskInfo(ctx, machine)
		return localDisk{DiskInfo: info}, err
	}
	ref, err := d.openDisk(ctx, args[0])
	if err != nil {
		return localDisk{}, err
	}
	defer ref.Store.Close()
	x := localDisk{DiskInfo: api.DiskInfo{URL: ref.URL}}
	served, err := d.attachedHere(ctx, ref, &x)
	if err != nil {
		return x, err
	}
	sctx, cancel := ctx, context.CancelFunc(func() {})
	if served { // a store that doesn't answer is no reason to say nothing
		sctx, cancel = context.WithTimeout(ctx, servedInfoWait)
	}
	defer cancel()
	info, err := storedInfo(sctx, ref)
	if err == nil {
		x.Pins, err = storedPins(sctx, ref)
	}
	switch {
	case err == nil:
		x.DiskInfo = info
		x.inspectLog(sctx, ref)
	case served && errs.Is(err, errs.Unavailable):
		x.StoreError, x.Attachments = err.Error(), nil
		_, err = d.attachedHere(ctx, ref, &x)
		return x, err
	default:
		return x, ref.Explain(ctx, err)
	}
	return x, nil
}

// inspectLog fills in what is in the log store, if the disk has one.
func (x *localDisk) inspectLog(ctx context.Context, ref *diskRef) {
	if x.LogStore == "" {
		return
	}
	head, err := disk.ReadHead(ctx, ref.Store, ref.Path)
	if err == nil && head.LogStore != nil {
		ctx, cancel := context.WithTimeout(ctx, servedInfoWait)
		defer cancel()
		x.Log, err = disk.InspectLog(ctx, head, openLog)
	}
	if err != nil {
		x.LogError = err.Error()
	}
}

// servedInfoWait is how long the store is asked about a disk of which an attachment here can tell
// something.
const servedInfoWait = 3 * time.Second

// attachedHere fills in a disk's attachments on this host, and reports whether one of them answers.
func (d *deps) attachedHere(ctx context.Context, ref *diskRef,
	x *localDisk) (answers bool, err error) {
	live, _, err := d.registry().List()
	for _, r := range live {
		if r.URL != ref.URL {
			continue
		}
		a := localAttachment{Record: r}
		if s := host.Stats(ctx, &r); s != nil {
			a.Acknowledges, a.Stall, answers = s.Acknowledges, s.Stall, true
		}
		x.Attachments = append(x.Attachments, a)
	}
	return answers, err
}

// storedInfo returns what the store says about a disk.
func storedInfo(ctx context.Context, ref *diskRef) (api.DiskInfo, error) {
	details, err := disk.Info(ctx, ref.Store, ref.Path)
	if err != nil {
		return api.DiskInfo{}, err
	}
	points, err := disk.ListCheckpoints(ctx, ref.Store, ref.Path)
	if err != nil {
		return api.DiskInfo{}, err
	}
	return diskToAPI(ref.URL, details, points), nil
}

// attachedDiskInfo asks the platform that has the disk attached.
func (d *deps) attachedDiskInfo(ctx context.Context, machine string) (api.DiskInfo, error) {
	c, err := d.client()
	if err != nil {
		return api.DiskInfo{}, err
	}
	m, err := c.Machine(ctx, machine)
	if err != nil {
		return api.DiskInfo{}, err
	}
	info, err := c.MachineDisk(ctx, m.ID)
	if err != nil {
		return info, err
	}
	info.URL = m.DiskURL // the platform knows only its path
	return info, nil
}

func diskToAPI(url string, x *disk.Details, points []*format.Checkpoint) api.DiskInfo {
	h := x.Head
	out := api.DiskInfo{URL: url, ID: h.ID, SizeBytes: h.Size, State: string(h.State), Mode: h.Mode,
		BoundMS: h.BoundMS, Epoch: h.Epoch,
		Generation: h.Generation, Holder: h.Holder, UpdatedAt: h.Updated,
		MappedBytes: x.MappedBytes, StoredBytes: x.Bytes, Objects: x.Objects, Forks: x.Forks}
	if l := h.LogStore; l != nil {
		out.LogStore = l.URL
	}
	if e := h.Encryption; e != nil {
		out.Cipher, out.KeyID, out.KEK = e.Cipher, e.KeyID, e.KEK
	}
	if h.Parent != nil {
		out.Parent = h.Parent.Path + "@" + h.Parent.Checkpoint
	}
	for _, p := range points {
		out.Checkpoints = append(out.Checkpoints,
			api.DiskCheckpoint{Name: p.Name, CreatedAt: p.Created})
	}
	return out
}

func printDisk(w io.Writer, x localDisk) error {
	fmt.Fprintf(w, "Disk: %s\n", x.URL)
	if x.StoreError != "" {
		fmt.Fprintf(w, "What the store has of it is not known: %s\n", x.StoreError)
		return printAttachments(w, x.Attachments)
	}
	fields := [][2]string{{"ID", x.ID}, {"State", x.State},
		{"Mode", describeMode(x.Mode, x.BoundMS)}, {"Size", byteCount(x.SizeBytes)}}
	if x.Cipher != "" {
		fields = append(fields, [2]string{"Encryption", describeKey(&x.DiskInfo)})
	}
	if x.LogStore != "" {
		fields = append(fields, [2]string{"Log store", x.LogStore})
		switch {
		case x.LogError != "":
			fields = append(fields, [2]string{"  can't be used", x.LogError})
		case x.Log != nil:
			fields = append(fields, [2]string{"  has",
				fmt.Sprintf("%s in %d objects", byteCount(x.Log.Bytes), x.Log.Objects)})
		}
	}
	if x.Objects > 0 {
		fields = append(fields, [][2]string{{"Mapped", byteCount(x.MappedBytes)},
			{"In the store", fmt.Sprintf("%s in %d objects of its own",
				byteCount(x.StoredBytes), x.Objects)},
			{"Forks", strings.Join(x.Forks, ", ")}}...)
	}
	fields = append(fields, [][2]string{{"Epoch", fmt.Sprint(x.Epoch)},
		{"Generation", fmt.Sprint(x.Generation)},
		{"Holder", x.Holder}, {"Parent", x.Parent}, {"Updated", timestamp(x.UpdatedAt)}}...)
	if err := printFields(w, fields); err != nil {
		return err
	}
	if s := x.Stall; s != nil {
		fmt.Fprintf(w, "\nThe store has stalled since %s (%s): %s\n  try: %s\n", timestamp(s.Since),
			s.Operation, s.Reason, s.Remedy)
	}
	if err := printAttachments(w, x.Attachments); err != nil {
		return err
	}
	if err := printPins(w, x.Pins); err != nil {
		return err
	}
	fmt.Fprintf(w, "\nCheckpoints [%d]\n", len(x.Checkpoints))
	rows := make([][]string, 0, len(x.Checkpoints))
	for _, p := range x.Checkpoints {
		rows = append(rows, []string{p.Name, timestamp(p.CreatedAt)})
	}
	return printTable(w, []string{"NAME", "CREATED"}, rows)
}

func printAttachments(w io.Writer, all []localAttachment) error {
	if len(all) == 0 {
		return nil
	}
	fmt.Fprintf(w, "\nAttached on this host [%d]\n", len(all))
	rows := make([][]string, 0, len(all))
	for i := range all {
		r := &all[i]
		mode := "read-write"
		if r.ReadOnly {
			mode = "read-only"
		}
		if r.Ended != "" {
			mode = "cut off"
		}
		rows = append(rows, []string{fmt.Sprint(r.PID), string(r.Mode), mode, r.Checkpoint,
			r.Acknowledges, placeOf(&r.Record), timestamp(r.StartedAt)})
	}
	if err := printTable(w, []string{"PID", "MODE", "ACCESS", "CHECKPOINT", "FLUSHED BY", "WHERE",
		"SINCE"}, rows); err != nil {
		return err
	}
	for i := range all {
		if r := &all[i]; r.Ended != "" {
			fmt.Fprintf(w,
				"\nprocess %d is cut off from the disk, and %s gives I/O errors: %s\n  try: sluice disk detach %s\n",
				r.PID, placeOf(&r.Record), r.Ended, placeOf(&r.Record))
		}
		if s := all[i].Stall; s != nil {
			if err := printStall(w, fmt.Sprintf("\nprocess %d", all[i].PID), s); err != nil {
				return err
			}
		}
	}
	return nil
}
