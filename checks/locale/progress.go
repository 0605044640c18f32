package locale

import (
	"sync"

	"github.com/synapse-doctor/synapse-doctor/core/doctor"
)

// progress tells the host how far an operation has come, from any of its sessions.
type progress struct {
	host doctor.OperationHost

	mu       sync.Mutex
	is, want int64 // bytes
}

// at says what is being done now.
func (p *progress) at(text string) {
	p.mu.Lock()
	now := doctor.Progress{Text: text, Done: p.is, Total: p.want, Unit: "bytes"}
	p.mu.Unlock()
	p.host.Progress(now)
}

// total adds work to do.
func (p *progress) total(bytes int64) {
	p.mu.Lock()
	defer p.mu.Unlock()
	p.want += bytes
}

// done adds work that is done.
func (p *progress) done(bytes int64) {
	p.mu.Lock()
	defer p.mu.Unlock()
	p.is += bytes
}
