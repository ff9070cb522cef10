//go:build bench

package frontend

import (
	"cmp"
	"context"
	"encoding/json"
	"fmt"
	"math"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"github.com/sluice-platform/sluice/internal/disk/frontend"
	"github.com/sluice-platform/sluice/test/bench/serving"
)

const (
	rounds  = 3
	fileMiB = 768
)

// job is a fio workload on one file of fileMiB that was written before.
type job struct {
	name, rw, bs string
	depth        int
}

var jobs = []job{
	{"sequential write 1M QD4", "write", "1m", 4},
	{"sequential read 1M QD4", "read", "1m", 4},
	{"random read 4k QD16", "randread", "4k", 16},
	{"random write 4k QD16", "randwrite", "4k", 16},
	{"random read 4k QD1", "randread", "4k", 1},
	{"random write 4k QD1", "randwrite", "4k", 1},
}

// TestFrontEnd runs each job on ext4 on each kind of device in turn, a few rounds, and compares the
// medians.
func TestFrontEnd(t *testing.T) {
	kinds := strings.Split(cmp.Or(os.Getenv("SLUICE_BENCH_KINDS"),
		"plain,nothing,memory,directory"), ",")
	dirs := map[string]string{}
	for _, k := range kinds {
		dev := ""
		if k == "plain" {
			dev = plainLoop(t)
		} else {
			dev = serving.Start(t, k, t.TempDir()).Device
		}
		dirs[k] = mountNew(t, dev)
	}
	// what is measured overwrites and reads, and doesn't make the file grow
	for _, k := range kinds {
		fill := exec.CommandContext(t.Context(), "dd", "if=/dev/urandom",
			"of="+filepath.Join(dirs[k], "file"), "bs=1M",
			fmt.Sprint("count=", fileMiB), "conv=fsync", "status=none")
		if out, err := fill.CombinedOutput(); err != nil {
			t.Fatalf("fill: %v: %s", err, out)
		}
	}
	for _, j := range jobs {
		t.Run(j.name, func(t *testing.T) { compare(t, j, kinds, dirs) })
	}
}

func compare(t *testing.T, j job, kinds []string, dirs map[string]string) {
	rate := map[string][]float64{}
	for range rounds {
		for _, k := range kinds {
			rate[k] = append(rate[k], fio(t, filepath.Join(dirs[k], "file"), j))
		}
	}
	of := func(k string) float64 {
		if len(rate[k]) == 0 {
			return math.NaN()
		}
		slices.Sort(rate[k])
		return rate[k][len(rate[k])/2]
	}
	for _, k := range kinds {
		fmt.Printf("RESULT %s, %s: %.0f IOPS, / plain loop %.2f, / do-nothing %.2f\n",
			j.name, k, of(k), of(k)/of("plain"), of(k)/of("nothing"))
	}
}

// mountNew makes an ext4 on a block device and mounts it until the test ends.
func mountNew(t *testing.T, dev string) string {
	t.Helper()
	if err := frontend.Mkfs(t.Context(), dev, frontend.MkfsOptions{}); err != nil {
		t.Fatal(err)
	}
	dir := t.TempDir()
	if err := frontend.MountExt4(t.Context(), dev, dir, unix.MS_NOATIME); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		ctx, cancel := context.WithTimeout(context.Background(), time.Minute)
		defer cancel()
		if err := frontend.Unmount(ctx, dir); err != nil {
			t.Error(err)
		}
	})
	return dir
}

// fio runs a job for some seconds and returns its operations per second.
func fio(t *testing.T, file string, j job) float64 {
	t.Helper()
	out, err := exec.CommandContext(t.Context(), "fio", "--name=job", "--filename="+file,
		fmt.Sprintf("--size=%dm", fileMiB), "--rw="+j.rw,
		"--bs="+j.bs, fmt.Sprintf("--iodepth=%d", j.depth), "--ioengine=libaio", "--direct=1",
		"--fallocate=none",
		"--time_based", "--runtime=2", "--norandommap", "--output-format=json").Output()
	if err != nil {
		t.Fatalf("fio: %v: %s", err, out)
	}
	var r struct {
		Jobs []struct {
			Read, Write struct {
				IOPS float64 `json:"iops"`
			}
		} `json:"jobs"`
	}
	if err := json.Unmarshal(out, &r); err != nil || len(r.Jobs) != 1 {
		t.Fatalf("fio printed %q: %v", out, err)
	}
	return r.Jobs[0].Read.IOPS + r.Jobs[0].Write.IOPS
}
