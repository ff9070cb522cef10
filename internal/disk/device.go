package disk

import "context"

// BlockSize is the unit of addressing and of checksummed content, in bytes.
const BlockSize = 4096

// Device is what a front end serves: the virtual disk engine, and later a local volume or a clone
// being hydrated. Offsets and lengths are in bytes and may be unaligned. The engine merges partial
// blocks under its own lock, so that two writers of one block never lose each other's half.
//
// Safe for concurrent use. ReadAt of a range never written, trimmed or zeroed gives zeros. A write
// is visible to every later read as soon as WriteAt returns. It is durable once a Flush that began
// after that has returned nil. After an error of kind Fenced or Corrupt every later mutation fails
// too.
type Device interface {
	Size() int64
	ReadAt(ctx context.Context, p []byte, off int64) error
	WriteAt(ctx context.Context, p []byte, off int64) error
	// Flush returns when every write that returned before the call is durable, as the disk's mode
	// defines it.
	Flush(ctx context.Context) error
	// Trim says that the range's content is no longer needed. It reads as zeros afterwards.
	Trim(ctx context.Context, off, length int64) error
	// Zero makes the range read as zeros.
	Zero(ctx context.Context, off, length int64) error
}
