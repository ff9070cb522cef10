package sandbox

import "testing"

func TestEntersOnExec(t *testing.T) {
	for release, want := range map[string]bool{"6.1.0-32-cloud-amd64": false, "6.2.16": false,
		"6.3.0": true, "6.18.44-custom": true, "7.0": true, "5.15.0": false, "": false,
		"unknown": false} {
		if got := entersOnExec(release); got != want {
			t.Errorf("%q: %v", release, got)
		}
	}
}
