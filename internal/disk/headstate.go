package disk

import (
	"sync"

	"github.com/sluice-platform/sluice/internal/blob"
	"github.com/sluice-platform/sluice/internal/disk/format"
)

// maxHeadRaces bounds how often an attach starts over because somebody changed the head meanwhile:
// the old writer's map checkpoints and other attaches do.
const maxHeadRaces = 32

// headState is the head as this session last wrote or read it. Only whoever has the turn of the map
// writer changes it; anybody may read it at any time.
type headState struct {
	mu   sync.Mutex
	head format.Head
	etag blob.ETag
}

func (s *headState) get() (format.Head, blob.ETag) {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.head, s.etag
}

func (s *headState) set(head *format.Head, etag blob.ETag) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.head, s.etag = *head, etag
}
