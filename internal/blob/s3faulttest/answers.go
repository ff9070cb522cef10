package s3faulttest

import (
	"bytes"
	"compress/gzip"
	"fmt"
	"net/http"
	"regexp"
	"strconv"
	"strings"
)

func statusName(status int) string { return strconv.Itoa(status) }

func nginxPage(status int, text string) string {
	title := fmt.Sprint(status, " ", text)
	return fmt.Sprintf(nginx, title, title)
}

// document is S3's own answer that says no.
func document(code, message string) string {
	return `<?xml version="1.0" encoding="UTF-8"?>` + "\n<Error><Code>" + code +
		"</Code><Message>" + message +
		"</Message><RequestId>4442587FB7D0A2F9</RequestId><HostId>Uuag1LuByRx9e6j5Onimru9pO4ZVKnJ2Qz7</HostId></Error>"
}

// lengths are answers of the store that were cut or changed on the way.
func lengths() []Kind { return append(cutAnswers(), otherAnswers()...) }

// cutAnswers have less, or more, than they promise.
func cutAnswers() []Kind {
	reads := Get | List
	return []Kind{
		{Name: "Content-Length too short", Ops: reads, Says: "answer", answer: func(x *exchange) {
			rep := x.forward()
			x.raw(append(rep.head(len(rep.body)/2), rep.body...))
		}},
		{Name: "Content-Length too long", Ops: reads, Says: "answer", answer: func(x *exchange) {
			rep := x.forward()
			x.raw(append(rep.head(len(rep.body)+10), rep.body...))
		}},
		{Name: "cut body", Ops: reads, Says: "cut", answer: func(x *exchange) {
			rep := x.forward()
			x.raw(append(rep.head(len(rep.body)), rep.body[:len(rep.body)/2]...))
		}},
		{Name: "cut in chunks", Ops: reads, Says: "cut", answer: func(x *exchange) {
			rep := x.forward()
			rep.header.Set("Transfer-Encoding", "chunked")
			half := rep.body[:len(rep.body)/2]
			x.raw(append(append(rep.head(-1), fmt.Sprintf("%x\r\n", len(half))...),
				append(half, "\r\n"...)...))
		}},
		{Name: "cut without a length", Ops: reads, Says: "answer", answer: func(x *exchange) {
			rep := x.forward()
			x.raw(append(rep.head(-1), rep.body[:len(rep.body)/2]...))
		}},
	}
}

// otherAnswers are whole, and not what was asked for.
func otherAnswers() []Kind {
	return []Kind{
		{Name: "gzip and a weak ETag", Ops: Get | List, Says: "gzip", answer: func(x *exchange) {
			rep := x.forward()
			var b bytes.Buffer
			z := gzip.NewWriter(&b)
			_, _ = z.Write(rep.body) // a buffer takes all
			_ = z.Close()
			rep.body = b.Bytes()
			rep.header.Set("Content-Encoding", "gzip")
			weaken(rep)
			x.send(rep)
		}},
		{Name: "another range", Ops: Get, Says: "not what was asked for",
			answer: func(x *exchange) {
				rep := x.forward()
				rep.status = http.StatusPartialContent
				rep.header.Set("Content-Range",
					fmt.Sprintf("bytes 1-%d/%d", len(rep.body), len(rep.body)+9))
				x.send(rep)
			}},
		{Name: "a range that can't be read", Ops: Get, Says: "Content-Range",
			answer: func(x *exchange) {
				rep := x.forward()
				rep.status = http.StatusPartialContent
				rep.header.Set("Content-Range", "bytes */*")
				x.send(rep)
			}},
		{Name: "another version's body", Ops: Get, Says: "torn",
			Whole: true, Unheard: true, answer: func(x *exchange) {
				rep := x.forward()
				x.p.mu.Lock()
				other := byte(x.p.hits%255 + 1) // another each time, as while somebody writes
				x.p.mu.Unlock()
				for i := range rep.body {
					rep.body[i] ^= other
				}
				x.send(rep)
			}},
		{Name: "done, and no ETag", Ops: Get | Put, Says: "ETag", answer: func(x *exchange) {
			rep := x.forward()
			rep.header.Del("ETag")
			// the store says no to a write that it has done: that is to be heard
			if rep.status > 299 {
				x.reset()
				return
			}
			x.send(rep)
		}},
	}
}

func weaken(rep *reply) {
	if tag := rep.header.Get("ETag"); tag != "" {
		rep.header.Set("ETag", "W/"+tag)
	}
}

var (
	truncated = regexp.MustCompile(`<IsTruncated>\w+</IsTruncated>`)
	contents  = regexp.MustCompile(`(?s)<Contents>.*?</Contents>`)
	keyCount  = regexp.MustCompile(`<KeyCount>\d+</KeyCount>`)
)

// listings are documents of a listing that can't be one.
func listings() []Kind {
	changed := func(name, says string, change func(document string) string) Kind {
		return Kind{Name: name, Ops: List, Says: says, answer: func(x *exchange) {
			rep := x.forward()
			rep.body = []byte(change(string(rep.body)))
			x.send(rep)
		}}
	}
	return []Kind{
		changed("truncated without a token", "no token", func(d string) string {
			return truncated.ReplaceAllString(d, "<IsTruncated>true</IsTruncated>")
		}),
		changed("the same token again", "would never end", func(d string) string {
			d = contents.ReplaceAllString(keyCount.ReplaceAllString(d, ""), "")
			return truncated.ReplaceAllString(d,
				"<IsTruncated>true</IsTruncated><NextContinuationToken>same</NextContinuationToken>")
		}),
		changed("no word on the end", "whether it is whole",
			func(d string) string { return truncated.ReplaceAllString(d, "") }),
		changed("an empty document", "whether it is whole",
			func(string) string { return `<ListBucketResult/>` }),
		changed("another document", "no listing", func(d string) string {
			return strings.ReplaceAll(d, "ListBucketResult", "ListAllMyBucketsResult")
		}),
		changed("a key of somebody else", "does not begin with the prefix", func(d string) string {
			return strings.Replace(d, "<IsTruncated>",
				"<Contents><Key>0/alien</Key><Size>1</Size></Contents><IsTruncated>", 1)
		}),
		changed("fewer keys than it says", "fewer keys", func(d string) string {
			return keyCount.ReplaceAllString(d, "<KeyCount>99999</KeyCount>")
		}),
	}
}

// connections are what becomes of those.
func connections() []Kind {
	return []Kind{
		{Name: "reset before it was done", Ops: All, Unheard: true, Says: "reset",
			answer: func(x *exchange) { x.reset() }},
		{Name: "reset after it was done", Ops: All, Unheard: true, Says: "reset",
			answer: func(x *exchange) { x.forward(); x.reset() }},
		{Name: "closed after it was done", Ops: All, Unheard: true, Says: "EOF",
			answer: func(x *exchange) { x.forward(); x.raw(nil) }},
		{Name: "no HTTP", Ops: All, Says: "malformed",
			answer: func(x *exchange) { x.raw([]byte("SSH-2.0-OpenSSH_9.2\r\n\r\n")) }},
		{Name: "cut head", Ops: All, Unheard: true, Says: "EOF",
			answer: func(x *exchange) { x.raw([]byte("HTTP/1.1 200 OK\r\nETag: \"")) }},
		{Name: "no answer", Ops: All, Unheard: true, Says: "", answer: func(x *exchange) {
			<-x.healed
			x.reset()
		}},
		{Name: "an answer that drips", Ops: All, Says: "", answer: func(x *exchange) {
			rep := x.forward()
			x.trickle(append(rep.head(len(rep.body)), rep.body...))
		}},
	}
}

// harmless are odd, and must work.
func harmless() []Kind {
	return []Kind{
		{Name: "chunks without a length", Ops: Get | List, Harmless: true,
			answer: func(x *exchange) {
				rep := x.forward()
				for name, values := range rep.header {
					x.w.Header()[name] = values
				}
				x.w.Header().Del("Content-Length")
				x.w.WriteHeader(rep.status)
				_, _ = x.w.Write(rep.body[:len(rep.body)/2])
				_ = http.NewResponseController(x.w).Flush() // so that the length isn't told
				_, _ = x.w.Write(rep.body[len(rep.body)/2:])
			}},
		{Name: "weak ETags", Ops: Get | Put, Harmless: true, answer: func(x *exchange) {
			rep := x.forward()
			weaken(rep)
			x.send(rep)
		}},
		{Name: "drops Range", Ops: Get, Harmless: true, answer: func(x *exchange) {
			rep := x.forward()
			x.p.mu.Lock()
			whole := x.p.stored[x.r.URL.Path]
			x.p.mu.Unlock()
			// asked of the server without Range, the signature were wrong
			if rep.status == http.StatusPartialContent && whole != nil {
				rep.status, rep.body = http.StatusOK, whole
				rep.header.Del("Content-Range")
			}
			x.send(rep)
		}},
		{Name: "early hints", Ops: All, Harmless: true, answer: func(x *exchange) {
			rep := x.forward()
			x.w.Header().Set("Link", "</style.css>; rel=preload")
			x.w.WriteHeader(http.StatusEarlyHints)
			x.send(rep)
		}},
		{Name: "done twice", Ops: Put | Delete, Harmless: true, answer: func(x *exchange) {
			x.forward()
			x.send(x.forward()) // as by a proxy that repeats what it should not
		}},
	}
}

// silent say what the store would say.
func silent() []Kind {
	return []Kind{
		{Name: "a PUT that is swallowed", Ops: Put, Silent: true, answer: func(x *exchange) {
			x.send(&reply{status: 200, header: http.Header{
				"Etag": {fmt.Sprintf(`"%032x"`, len(x.body))}}})
		}},
		{Name: "a DELETE that is swallowed", Ops: Delete, Silent: true, answer: func(x *exchange) {
			x.send(&reply{status: http.StatusNoContent})
		}},
		{Name: "an old GET", Ops: Get, Silent: true, answer: old},
		{Name: "an old listing", Ops: List, Silent: true, answer: old},
		{Name: "a listing that lacks keys", Ops: List, Silent: true, answer: func(x *exchange) {
			rep := x.forward()
			n := 0
			rep.body = contents.ReplaceAllFunc(keyCount.ReplaceAll(rep.body, nil),
				func(entry []byte) []byte {
					if n++; n%2 == 0 {
						return nil
					}
					return entry
				})
			x.send(rep)
		}},
		{Name: "an empty listing", Ops: List, Silent: true, answer: func(x *exchange) {
			rep := x.forward()
			rep.body = contents.ReplaceAll(keyCount.ReplaceAll(rep.body,
				[]byte("<KeyCount>0</KeyCount>")), nil)
			rep.body = truncated.ReplaceAll(rep.body, []byte("<IsTruncated>false</IsTruncated>"))
			x.send(rep)
		}},
	}
}

// old answers a read as it was answered first.
func old(x *exchange) {
	x.p.mu.Lock()
	rep := x.p.first[cacheKey(x.r)]
	x.p.mu.Unlock()
	if rep == nil {
		rep = x.forward()
	}
	x.send(&reply{status: rep.status, header: rep.header.Clone(), body: rep.body})
}
