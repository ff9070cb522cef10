package api

// Quota is what bounds a network, an app of a network or the fleet, and what that uses. Quantities
// are machines, running (machines), cpu_millis, memory_mib, disk_bytes, secrets, execs and logs;
// those of the fleet are images and image_bytes.
type Quota struct {
	ID string `json:"id"` // network/NETWORK, network/NETWORK/APP, default or fleet
	// Limits are those that count; what isn't there has no bound.
	Limits map[string]int64 `json:"limits"`
	// Own are those that were set for it: others are the default's. -1: no bound, whatever the
	// default is.
	Own  map[string]int64 `json:"own,omitempty"`
	Used map[string]int64 `json:"used"`
}

// SetQuota changes limits. Those that aren't named stay; null takes one away; -1 is no bound,
// whatever the default is.
type SetQuota struct {
	Limits map[string]*int64 `json:"limits"`
}
