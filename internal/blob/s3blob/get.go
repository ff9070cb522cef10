package s3blob

import (
	"bytes"
	"context"
	"fmt"
	"io"

	"github.com/aws/aws-sdk-go-v2/aws"
	"github.com/aws/aws-sdk-go-v2/service/s3"

	"github.com/sluice-platform/sluice/internal/blob"
	"github.com/sluice-platform/sluice/internal/x/errs"
)

const (
	maxUntold = 1 << 30 // of an answer that doesn't say how long it is
	// of memory that an answer is given before any of it has come: more than any object of ours
	maxAtOnce = 96 << 20
)

// Get implements blob.Store. A whole object is asked for as a range, too: then the answer says how
// long the object is, beside how long itself is, and one that was cut by who wrote its head anew
// shows.
func (s *Store) Get(ctx context.Context, key string, r blob.Range) (blob.Object, error) {
	if err := blob.CheckKey(key); err != nil {
		return blob.Object{}, err
	}
	asked := r
	if r.Offset >= 0 && r.Length == 0 {
		asked.Length = 1 // there's no range of no bytes; one byte tells the size and the ETag, too
	}
	o, err := s.get(ctx, key, asked, header(asked))
	if errs.Is(err, errs.Invalid) && r.Offset <= 0 {
		// No range of an empty object can be asked for over HTTP, so this may just be one.
		if o, err = s.get(ctx, key, asked, ""); err == nil && o.Size > 0 && !r.Whole() {
			return blob.Object{}, errs.New(errs.Unavailable,
				"get object %s: it changed meanwhile", key)
		}
	}
	if err == nil && r.Offset >= 0 && r.Length == 0 {
		if _, _, err := r.Resolve(o.Size); err != nil {
			return blob.Object{}, err
		}
		o.Data = nil
	}
	return o, err
}

// header returns a range as HTTP writes it.
func header(r blob.Range) string {
	switch {
	case r.Offset < 0:
		return fmt.Sprintf("bytes=%d", r.Offset)
	case r.Length < 0:
		return fmt.Sprintf("bytes=%d-", r.Offset)
	default:
		return fmt.Sprintf("bytes=%d-%d", r.Offset, r.Offset+r.Length-1)
	}
}

func (s *Store) get(ctx context.Context, key string, r blob.Range,
	byteRange string) (blob.Object, error) {
	var o blob.Object
	var digest string
	err := s.again(ctx, func(ctx context.Context) (err error) {
		o, digest, err = s.getOnce(ctx, key, r, byteRange)
		return err
	})
	if err != nil || digest == "" {
		return o, err
	}
	return s.untorn(ctx, key, o, digest)
}

// getOnce also returns the MD5 that the object's ETag promises; "" if it promises none, and for a
// part of an object, of which nobody can tell.
func (s *Store) getOnce(ctx context.Context, key string, r blob.Range,
	byteRange string) (blob.Object, string, error) {
	in := &s3.GetObjectInput{Bucket: &s.bucket, Key: s.key(key)}
	if byteRange != "" {
		in.Range = &byteRange
	}
	out, err := s.client.GetObject(ctx, in)
	if err != nil {
		return blob.Object{}, "", s.failure(err, "get object %s", key)
	}
	defer out.Body.Close()
	told := int64(-1)
	if out.ContentLength != nil {
		told = *out.ContentLength
	}
	o, err := readAnswer(r, aws.ToString(out.ContentRange), told, out.Body)
	o.ETag = etag(aws.ToString(out.ETag))
	if err != nil {
		return blob.Object{}, "", errs.Wrap(errs.KindOf(err), err, "get object %s", key).
			WithRemedy("%s", s.strangerRemedy(0))
	}
	if !r.Whole() {
		return o, "", nil
	}
	return o, s.tags.compared(o, out), nil
}

// readAnswer reads the object in an answer to a Get of r, and refuses what isn't exactly that. told
// is the length of the answer, -1 if it doesn't say.
func readAnswer(r blob.Range, contentRange string, told int64,
	body io.Reader) (blob.Object, error) {
	if contentRange == "" {
		return readWhole(r, told, body)
	}
	var first, last, total int64
	if n, err := fmt.Sscanf(contentRange, "bytes %d-%d/%d", &first, &last, &total); err != nil ||
		n != 3 {
		return blob.Object{}, strange("a Content-Range that can't be read: %q",
			printable(contentRange))
	}
	offset, count, err := r.Resolve(total)
	if err != nil || count < 1 || first != offset || last != offset+count-1 || told >= 0 &&
		told != count {
		return blob.Object{}, strange(
			"bytes %d to %d of %d, said to be %d, which is not what was asked for", first,
			last, total, told)
	}
	data, err := readExactly(body, count)
	return blob.Object{Data: data, Size: total}, err
}

// readWhole reads an object that came whole, though a part may have been asked for: some proxies
// drop that.
func readWhole(r blob.Range, told int64, body io.Reader) (blob.Object, error) {
	var data []byte
	var err error
	if told >= 0 {
		data, err = readExactly(body, told)
	} else if data, err = io.ReadAll(io.LimitReader(body, maxUntold)); err != nil {
		err = errs.Wrap(errs.Unavailable, err, "the answer was cut after %d bytes", len(data))
	}
	if err != nil {
		return blob.Object{}, err
	}
	offset, count, err := r.Resolve(int64(len(data)))
	if err != nil {
		return blob.Object{}, err
	}
	return blob.Object{Data: data[offset : offset+count : offset+count], Size: int64(len(data))},
		nil
}

func readExactly(body io.Reader, count int64) ([]byte, error) {
	b := bytes.NewBuffer(make([]byte, 0, min(count, maxAtOnce)+bytes.MinRead))
	n, err := b.ReadFrom(io.LimitReader(body, count))
	if err == nil && n < count {
		err = io.ErrUnexpectedEOF
	}
	if err != nil {
		return nil, errs.Wrap(errs.Unavailable, err,
			"the answer was cut after %d of %d bytes", n, count)
	}
	return b.Bytes(), nil
}

// strange is an answer that can't be the store's.
func strange(format string, args ...any) error {
	return errs.New(errs.Unavailable, "not the store's answer: %s", fmt.Sprintf(format, args...))
}
