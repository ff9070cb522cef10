package fleet

import "github.com/sluice-platform/sluice/internal/x/patience"

// Pressure is how much of the last ten seconds something on a host waited for a resource: 0 never,
// 1 always.
type Pressure struct {
	CPU    float64 `json:"cpu"`
	Memory float64 `json:"memory"`
	IO     float64 `json:"io"`
	// Load is the number of tasks that ran or waited to, over the last minute, and Cores what it is
	// to be compared with.
	Load  float64 `json:"load"`
	Cores int     `json:"cores"`
}

// Share is how much of the time a start on the host waits, as one number: deadlines are stretched
// by it. What isn't known stretches nothing.
func (p *Pressure) Share() float64 {
	if p == nil {
		return 0
	}
	return patience.Share(p.CPU, p.Memory, p.IO)
}

// High reports whether the host is under pressure.
func (p *Pressure) High() bool { return p.Share() >= patience.UnderPressure }
