package blob

import "github.com/sluice-platform/sluice/internal/x/errs"

// Resolve turns a range into the offset and count of bytes that it means for an object of size
// bytes. Every driver answers as Resolve does:
//   - a range over the end is cut, a negative Offset before the start gives the whole object;
//   - Length 0 gives no data, only ETag and Size, which is the cheapest way to ask for those;
//   - with a negative Offset, Length is not used;
//   - an Offset at or past the end is Invalid, but 0 is fine for an empty object.
func (r Range) Resolve(size int64) (offset, count int64, err error) {
	switch {
	case r.Offset < 0:
		offset = max(size+r.Offset, 0)
		return offset, size - offset, nil
	case r.Offset >= size && r.Offset > 0:
		return 0, 0, errs.New(errs.Invalid, "range from byte %d of an object of %d bytes",
			r.Offset, size)
	case r.Length < 0 || r.Length > size-r.Offset:
		return r.Offset, size - r.Offset, nil
	default:
		return r.Offset, r.Length, nil
	}
}

// Whole reports whether the range is the whole object, whatever its size.
func (r Range) Whole() bool { return r.Offset == 0 && r.Length < 0 }
