package s3blob

import (
	"bytes"
	"context"
	"encoding/xml"
	"fmt"
	"io"
	"net/http"
	"slices"
	"strings"
	"time"
	"unicode"
	"unicode/utf8"

	"github.com/aws/smithy-go/middleware"
	smithyhttp "github.com/aws/smithy-go/transport/http"

	"github.com/sluice-platform/sluice/internal/blob"
)

const (
	maxPage    = 64 << 10 // of an answer that says no, or has nothing to say
	maxListing = 16 << 20 // of a listing's page: 1,000 keys of 1,024 bytes, escaped
)

// S3's operations that we use, by the SDK's names.
const (
	opGet    = "GetObject"
	opPut    = "PutObject"
	opDelete = "DeleteObject"
	opList   = "ListObjectsV2"
)

// disbelieve stands between the SDK, which takes anything of status 2xx for done, and the wire.
type disbelieve struct{}

// addTo puts it where it sees answers before anybody has read them.
func (d disbelieve) addTo(stack *middleware.Stack) error {
	return stack.Deserialize.Insert(d, "OperationDeserializer", middleware.After)
}

// ID implements middleware.DeserializeMiddleware.
func (disbelieve) ID() string { return "Disbelieve" }

// HandleDeserialize lets an answer through that is what S3 promises. All others are a *refusal.
func (disbelieve) HandleDeserialize(ctx context.Context, in middleware.DeserializeInput,
	next middleware.DeserializeHandler) (
	middleware.DeserializeOutput, middleware.Metadata, error,
) {
	out, metadata, err := next.HandleDeserialize(ctx, in)
	resp, ok := out.RawResponse.(*smithyhttp.Response)
	if err != nil || !ok || resp == nil {
		return out, metadata, err
	}
	r := check(middleware.GetOperationName(ctx), resp.Response)
	if r == nil {
		return out, metadata, nil
	}
	resp.Body.Close()
	if r.code == "" {
		// Whatever that was, its clock is not the store's: the SDK would sign by it from now on.
		metadata = middleware.Metadata{}
	}
	return out, metadata, r
}

// check returns what is wrong with the answer to op, nil if it is what S3 promises. It may read and
// replace the body. A body that is given back is whole, but for the one of a Get, which is read
// where its length is known.
func check(op string, resp *http.Response) *refusal {
	if resp.StatusCode < 200 || resp.StatusCode > 299 {
		return refuse(resp, "")
	}
	if encoding := resp.Header.Get("Content-Encoding"); encoding != "" && encoding != "identity" &&
		encoding != "aws-chunked" {
		return refuse(resp, "in "+printable(encoding)+", which nobody asked for")
	}
	switch op {
	case opGet:
		return checkGet(resp)
	case opPut:
		return checkPut(resp)
	case opDelete:
		return checkDelete(resp)
	case opList:
		return checkList(resp)
	}
	return nil
}

// endless reports whether an answer ends where its connection does, wherever that is.
func endless(resp *http.Response) bool {
	return resp.ContentLength < 0 && resp.ProtoMajor < 2 &&
		!slices.Contains(resp.TransferEncoding, "chunked")
}

func checkGet(resp *http.Response) *refusal {
	partial, ranged := resp.StatusCode == http.StatusPartialContent,
		resp.Header.Get("Content-Range") != ""
	kind := strings.ToLower(resp.Header.Get("Content-Type"))
	switch {
	case resp.StatusCode != http.StatusOK && !partial:
		return refuse(resp, "where 200 or 206 was due")
	case partial != ranged:
		return refuse(resp, "whose status and Content-Range contradict each other")
	case !ranged && endless(resp):
		return refuse(resp, "without a length, so that nobody can tell whether it is whole")
	case noETag(resp):
		return refuse(resp, "without an ETag")
	// no object of ours is of such a type
	case strings.Contains(kind, "html") || strings.Contains(kind, "xml"):
		return refuse(resp, "which is a page")
	}
	return nil
}

func checkPut(resp *http.Response) *refusal {
	switch {
	case resp.StatusCode != http.StatusOK:
		return refuse(resp, "where 200 was due")
	case noETag(resp):
		return refuse(resp, "without an ETag")
	}
	return checkBlank(resp)
}

// checkDelete wants 204. A 200 is as good if it has a header of S3's: some stores answer so, and
// pages don't.
func checkDelete(resp *http.Response) *refusal {
	switch {
	case resp.StatusCode == http.StatusNoContent:
	case resp.StatusCode != http.StatusOK:
		return refuse(resp, "where 204 was due")
	case !amazonian(resp.Header):
		return refuse(resp, "where 204 was due, with no header of S3's")
	}
	return checkBlank(resp)
}

func amazonian(h http.Header) bool {
	for name := range h {
		if strings.HasPrefix(name, "X-Amz-") {
			return true
		}
	}
	return false
}

// checkBlank wants an answer that says nothing but its head.
func checkBlank(resp *http.Response) *refusal {
	body, err := io.ReadAll(io.LimitReader(resp.Body, maxPage+1))
	if err != nil {
		r := refuseBody(resp, body, "which was cut")
		r.cause = err
		return r
	}
	if len(bytes.TrimSpace(body)) > 0 {
		return refuseBody(resp, body, "with a body where none was due")
	}
	resp.Body.Close()
	resp.Body = http.NoBody
	return nil
}

// checkList wants the document of a listing. What is in it is judged by who asked.
func checkList(resp *http.Response) *refusal {
	if resp.StatusCode != http.StatusOK {
		return refuse(resp, "where 200 was due")
	}
	body, err := io.ReadAll(io.LimitReader(resp.Body, maxListing+1))
	switch {
	case err != nil:
		r := refuseBody(resp, body, "which was cut")
		r.cause = err
		return r
	case len(body) > maxListing:
		return refuseBody(resp, body, "longer than any listing")
	case rootOf(body) != "ListBucketResult":
		return refuseBody(resp, body, "which is no listing")
	}
	resp.Body.Close()
	resp.Body = io.NopCloser(bytes.NewReader(body))
	return nil
}

// rootOf returns the name of an XML document's outermost element, "" if it is none.
func rootOf(document []byte) string {
	d := xml.NewDecoder(bytes.NewReader(document))
	for {
		token, err := d.Token()
		if err != nil {
			return ""
		}
		if start, ok := token.(xml.StartElement); ok {
			return start.Name.Local
		}
	}
}

func noETag(resp *http.Response) bool { return etag(resp.Header.Get("ETag")) == "" }

// etag returns the ETag in a header. A weak one is the store's strong one, of which something on
// the way that compresses says that it may have touched the body; the store knows it without the
// mark.
func etag(header string) blob.ETag {
	return blob.ETag(strings.Trim(strings.TrimPrefix(strings.TrimSpace(header), "W/"), `"`))
}

// refuse reads what an answer says that isn't believed, or is a no.
func refuse(resp *http.Response, why string) *refusal {
	body, _ := io.ReadAll(io.LimitReader(resp.Body, maxPage)) // as much of it as came
	return refuseBody(resp, body, why)
}

func refuseBody(resp *http.Response, body []byte, why string) *refusal {
	r := &refusal{
		status: resp.StatusCode, why: why, contentType: printable(resp.Header.Get("Content-Type")),
		location: printable(resp.Header.Get("Location")),
		after:    blob.RetryAfter(resp.Header, time.Now()),
	}
	var said struct {
		XMLName   xml.Name
		Code      string
		Message   string
		RequestID string `xml:"RequestId"`
	}
	if xml.Unmarshal(body, &said) == nil && said.XMLName.Local == "Error" && said.Code != "" {
		r.code, r.message, r.request = printable(said.Code), printable(said.Message),
			printable(said.RequestID)
		return r
	}
	r.page = firstWords(body)
	return r
}

// refusal is an answer that isn't the success that was asked for.
type refusal struct {
	status                 int
	code, message, request string // S3's own document; code is "" if that isn't what came
	why                    string // what makes a success none; "" for other answers
	contentType, location  string
	page                   string // how it begins, where it isn't S3's document
	after                  time.Duration
	cause                  error
}

// Error begins with the point: S3's own words, or what came in their place.
func (r *refusal) Error() string {
	status := strings.TrimSpace(fmt.Sprint(r.status, " ", http.StatusText(r.status)))
	if r.code != "" && r.why == "" {
		return r.ownWords(status)
	}
	var b strings.Builder
	b.WriteString("not the store's answer: " + status)
	if r.why != "" {
		b.WriteString(" " + r.why)
	}
	if r.code != "" {
		b.WriteString(", " + r.code + ": " + r.message)
	}
	if r.location != "" {
		b.WriteString(" to " + r.location)
	}
	if r.contentType != "" {
		b.WriteString(", " + r.contentType)
	}
	if r.page != "" {
		fmt.Fprintf(&b, ", %q", r.page)
	}
	if r.cause != nil {
		b.WriteString(": " + r.cause.Error())
	}
	return b.String()
}

func (r *refusal) ownWords(status string) string {
	text := r.code
	if r.message != "" {
		text += ": " + strings.TrimRight(r.message, ". ")
	}
	if r.request != "" {
		status += ", request " + r.request
	}
	return text + " (" + status + ")"
}

// Unwrap returns what cut the answer short.
func (r *refusal) Unwrap() error { return r.cause }

const maxWords = 160 // characters of a page, or of a message, that are quoted

// firstWords returns how a page begins, without its markup.
func firstWords(body []byte) string {
	var b strings.Builder
	depth := 0
	for _, c := range string(body[:min(len(body), 4<<10)]) {
		switch {
		case c == '<':
			depth++
			b.WriteByte(' ')
		case c == '>' && depth > 0:
			depth--
		case depth == 0:
			b.WriteRune(c)
		}
	}
	return printable(b.String())
}

// printable returns text that came over the wire as it may be shown and logged: one line, of a
// bounded length.
func printable(s string) string {
	s = strings.Join(strings.FieldsFunc(s, func(c rune) bool {
		return c == ' ' ||
			c == utf8.RuneError || !unicode.IsPrint(c)
	}), " ")
	words := []rune(s)
	if len(words) > maxWords {
		return string(words[:maxWords]) + "…"
	}
	return s
}
