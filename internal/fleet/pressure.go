package fleet

// UnderPressure is the share of the time from which a host counts as under pressure: what starts there
// takes at least twice as long.
const UnderPressure = 0.5

// ioWeight is how much waiting for I/O slows what starts: a single writer makes something wait all of the
// time, on a host that is fine.
const ioWeight = 0.5

// Pressure is how much of the last ten seconds something on a host waited for a resource: 0 never, 1 always.
type Pressure struct {
	CPU    float64 `json:"cpu"`
	Memory float64 `json:"memory"`
	IO     float64 `json:"io"`
	// Load is the number of tasks that ran or waited to, over the last minute, and Cores what it is to be
	// compared with.
	Load  float64 `json:"load"`
	Cores int     `json:"cores"`
}

// Share is how much of the time a start on the host waits, as one number: deadlines are stretched by it.
// What isn't known stretches nothing.
func (p *Pressure) Share() float64 {
	if p == nil {
		return 0
	}
	return min(max(p.CPU, p.Memory, ioWeight*p.IO, 0), 1)
}

// High reports whether the host is under pressure.
func (p *Pressure) High() bool { return p.Share() >= UnderPressure }
