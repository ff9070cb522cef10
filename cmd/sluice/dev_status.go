package main

import (
	"fmt"
	"io"

	"github.com/sluice-platform/sluice/internal/devfleet"
)

// devStatus is what dev status prints as JSON.
type devStatus struct {
	Dir      string       `json:"dir"`
	URL      string       `json:"url"`
	StoreURL string       `json:"store_url"`
	Server   devProcess   `json:"server"`
	Workers  []devProcess `json:"workers"`
}

type devProcess struct {
	Name    string `json:"name"`
	PID     int    `json:"pid"`
	Running bool   `json:"running"`
	Address string `json:"address"`
	Netns   string `json:"netns,omitempty"`
}

func (d *deps) printDevStatus(f *devfleet.Fleet) error {
	s, err := f.State()
	if err != nil {
		return err
	}
	out := devStatus{Dir: f.Dir, URL: s.ServerURL, StoreURL: s.StoreURL,
		Server: devProcess{Name: "server", PID: s.Server.PID, Running: s.Server.Alive(),
			Address: s.ServerHost()}}
	for _, h := range s.Workers {
		out.Workers = append(out.Workers,
			devProcess{Name: h.Name, PID: h.Process.PID, Running: h.Process.Alive(),
				Address: h.Address, Netns: f.Netns(h.Name)})
	}
	return d.result(out, func(w io.Writer) error {
		if err := printFields(w, [][2]string{{"Directory", out.Dir}, {"Store", out.StoreURL},
			{"Server", out.URL}}); err != nil {
			return err
		}
		fmt.Fprintln(w)
		rows := [][]string{}
		for _, p := range append([]devProcess{out.Server}, out.Workers...) {
			rows = append(rows, []string{p.Name, fmt.Sprint(p.PID), yesNo(p.Running),
				p.Address, p.Netns})
		}
		if err := printTable(w, []string{"PROCESS", "PID", "RUNNING", "ADDRESS", "NETNS"},
			rows); err != nil {
			return err
		}
		_, err := fmt.Fprintf(w, "\nUse it: export SLUICE_DIR=%s\n", out.Dir)
		return err
	})
}
