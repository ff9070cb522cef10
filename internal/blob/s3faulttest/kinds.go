package s3faulttest

import "net/http"

// Kind is one way to answer.
type Kind struct {
	Name string
	Ops  Op     // the requests that are answered so
	Says string // what an error about it has to name; "" for Harmless and Silent ones
	// Harmless: odd, and right all the same. It must work.
	Harmless bool
	// Silent: no client can tell by the answer, which is as it should be; what it says did not
	// happen, or not lately.
	Silent bool

	// Whole: only reads of whole objects are answered so. Of a part, no client could tell.
	Whole bool

	// Unheard: HTTP itself repeats a read whose connection ended without an answer, and the driver
	// one whose answer was torn; if that helps, nobody hears of it.
	Unheard bool

	answer func(x *exchange)
}

const (
	elsewhere = "/elsewhere/login" // of the proxy itself
	pageETag  = `"5f3c-62d"`
	portal    = "<!DOCTYPE html>\n<html><head><title>Sign in</title></head><body>Sign in to the network</body></html>\n"
	ingress   = "default backend - 404"
	nginx     = "<html>\r\n<head><title>%s</title></head>\r\n<body>\r\n<center><h1>%s</h1></center>\r\n<hr><center>nginx</center>\r\n</body>\r\n</html>\r\n"
)

// Kinds returns all there are.
func Kinds() []Kind {
	var all []Kind
	for _, list := range [][]Kind{redirects(), pages(), refusals(), words(), lengths(), listings(),
		connections(), harmless(), silent()} {
		all = append(all, list...)
	}
	return all
}

// ByName returns the kind of a name.
func ByName(name string) (Kind, bool) {
	for _, k := range Kinds() {
		if k.Name == name {
			return k, true
		}
	}
	return Kind{}, false
}

func redirects() []Kind {
	var all []Kind
	for status, name := range map[int]string{301: "301 to a page", 302: "302 to a page",
		303: "303 to a page", 307: "307 to a page", 308: "308 to a page"} {
		all = append(all, Kind{Name: name, Ops: All, Says: http.StatusText(status),
			answer: func(x *exchange) {
				x.send(&reply{status: status, header: http.Header{"Location": {elsewhere}}})
			}})
	}
	return all
}

// pages are successes that aren't.
func pages() []Kind {
	html := http.Header{"Content-Type": {"text/html; charset=utf-8"}}
	fixed := func(name string, ops Op, says string, status int, header http.Header,
		body string) Kind {
		return Kind{Name: name, Ops: ops, Says: says, answer: func(x *exchange) {
			x.send(&reply{status: status, header: header, body: []byte(body)})
		}}
	}
	tagged := html.Clone()
	tagged.Set("ETag", pageETag)
	return []Kind{
		fixed("200 HTML", All, "Sign in", 200, html, portal),
		fixed("200 HTML with an ETag", All, "Sign in", 200, tagged, portal),
		fixed("200 Error document", All, "InternalError", 200,
			http.Header{"Content-Type": {"application/xml"}},
			document("InternalError", "We encountered an internal error. Please try again.")),
		fixed("200 empty", All, "200 OK", 200, nil, ""),
		fixed("200 JSON", All, "not ready", 200, http.Header{"Content-Type": {"application/json"}},
			`{"error":"not ready"}`),
		fixed("201 empty", All, "201 Created", 201, nil, ""),
		fixed("202 queued", All, "202 Accepted", 202, http.Header{"Etag": {pageETag}}, ""),
		fixed("204 without an ETag", Get|Put|List, "204 No Content", 204, nil, ""),
		fixed("304", Get|List, "304 Not Modified", 304, nil, ""),
	}
}

// refusals are a no by something that isn't the store.
func refusals() []Kind {
	var all []Kind
	for _, status := range []int{400, 401, 403, 405, 407, 411, 413, 414, 416, 417, 431, 500, 501,
		502, 503, 504, 507} {
		text := http.StatusText(status)
		all = append(all, Kind{Name: statusName(status) + " page", Ops: All, Says: text,
			answer: func(x *exchange) {
				x.send(&reply{status: status, header: http.Header{"Content-Type": {"text/html"}},
					body: []byte(nginxPage(status, text))})
			}})
	}
	bare := func(name string, ops Op, status int, header http.Header, body string) Kind {
		return Kind{Name: name, Ops: ops, Says: http.StatusText(status), answer: func(x *exchange) {
			x.send(&reply{status: status, header: header, body: []byte(body)})
		}}
	}
	return append(all,
		bare("404 of an ingress", All, 404, http.Header{"Content-Type": {"text/plain"}}, ingress),
		bare("404 empty", All, 404, nil, ""),
		bare("403 captive portal", All, 403, http.Header{"Content-Type": {"text/html"}}, portal),
		bare("409 empty", Put|Delete, 409, nil, ""),
		bare("412 made up", Put, 412, nil, ""),
		bare("412 page", Put, 412, http.Header{"Content-Type": {"text/html"}},
			nginxPage(412, "Precondition Failed")),
		bare("429 Retry-After", All, 429, http.Header{"Retry-After": {"1"}}, ""),
	)
}

// words are S3's own, for a while.
func words() []Kind {
	said := func(status int, code, message string) Kind {
		return Kind{Name: statusName(status) + " " + code, Ops: All, Says: code,
			answer: func(x *exchange) {
				x.send(&reply{status: status, header: http.Header{
					"Content-Type": {"application/xml"}},
					body: []byte(document(code, message))})
			}}
	}
	return []Kind{
		said(404, "NoSuchBucket", "The specified bucket does not exist"),
		said(301, "PermanentRedirect",
			"The bucket you are attempting to access must be addressed using the specified endpoint."),
		said(307, "TemporaryRedirect",
			"Please re-send this request to the specified temporary endpoint."),
		said(500, "InternalError", "We encountered an internal error. Please try again."),
		said(503, "SlowDown", "Reduce your request rate."),
		said(503, "ServiceUnavailable", "Please reduce your request rate."),
		said(409, "OperationAborted",
			"A conflicting conditional operation is currently in progress."),
		said(400, "RequestTimeout",
			"Your socket connection to the server was not read from or written to within the timeout period."),
		said(400, "BadDigest", "The Content-MD5 you specified did not match what we received."),
		said(403, "RequestTimeTooSkewed",
			"The difference between the request time and the current time is too large."),
		said(400, "ExpiredToken", "The provided token has expired."),
		said(403, "InvalidAccessKeyId",
			"The AWS Access Key Id you provided does not exist in our records."),
		said(403, "SignatureDoesNotMatch",
			"The request signature we calculated does not match the signature you provided."),
		said(403, "AccessDenied", "Access Denied"),
		said(403, "QuotaExceeded", "The quota of the bucket is used up."),
	}
}
