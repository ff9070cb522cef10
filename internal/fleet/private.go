package fleet

import "log/slog"

// Private is what a machine's worker and VM must know to run it, and nobody else may: it is handed
// on in memory only, and is in no record, answer or log. Its contents are never changed.
type Private struct {
	// DiskKeys open the machine's disk, newest first: two while one takes the place of the other.
	DiskKeys [][]byte `json:"disk_keys,omitempty"`
	// Secrets are in the environment of all that is started in the machine.
	Secrets map[string]string `json:"secrets,omitempty"`
}

// String says nothing, so that no log can.
func (Private) String() string { return "(private)" }

// GoString says nothing either.
func (Private) GoString() string { return "(private)" }

// LogValue implements slog.LogValuer.
func (Private) LogValue() slog.Value { return slog.StringValue("(private)") }
