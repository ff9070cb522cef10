package footholds

import (
	"context"
	"fmt"
	"strings"
)

// framing hides a second request in the body of a first one, which one part on the way may see and
// another not. What is hidden has no token: only who takes it for another's could answer it.
func (t *Tenant) framing() []Attempt {
	hidden := "GET /machines/" + t.Foreign.Machine + "/services HTTP/1.1\r\nHost: x\r\n\r\n"
	whole := "GET /v1/machines/" + t.Foreign.Machine + " HTTP/1.1\r\nHost: x\r\n\r\n"
	port := "/v1/machines/" + t.Own.Machine + "/ports/8080/"
	var all []Attempt
	add := func(name, target, body string, headers ...string) {
		all = append(all, t.framed(name, target, body, headers))
	}
	for where, target := range map[string]string{"a port": port, "the API": "/v1/machines"} {
		for what, body := range map[string]string{"a worker's path": hidden, "the API's": whole} {
			in := " to " + where + ", " + what
			chunked := fmt.Sprintf("%x\r\n%s\r\n0\r\n\r\n", len(body), body)
			add("length and chunks"+in, target, "0\r\n\r\n"+body,
				fmt.Sprintf("Content-Length: %d", len(body)+5), "Transfer-Encoding: chunked")
			add("chunks and length"+in, target, "0\r\n\r\n"+body, "Transfer-Encoding: chunked",
				"Content-Length: 5")
			add("two lengths"+in, target, body, "Content-Length: 0",
				fmt.Sprintf("Content-Length: %d", len(body)))
			add("lengths in one"+in, target, body,
				fmt.Sprintf("Content-Length: 0, %d", len(body)))
			add("length with a sign"+in, target, body,
				fmt.Sprintf("Content-Length: +%d", len(body)))
			add("length with a space before the colon"+in, target, body,
				fmt.Sprintf("Content-Length : %d", len(body)))
			add("unknown coding"+in, target, "0\r\n\r\n"+body, "Transfer-Encoding: xchunked")
			add("coding twice"+in, target, "0\r\n\r\n"+body, "Transfer-Encoding: chunked",
				"Transfer-Encoding: identity")
			add("coding with a tab"+in, target, "0\r\n\r\n"+body, "Transfer-Encoding:\tchunked, x")
			add("coding that goes on in the next line"+in, target, "0\r\n\r\n"+body,
				"Transfer-Encoding:\r\n chunked")
			add("chunk that lies of its length"+in, target, "5\r\n"+chunked)
			add("chunk with an extension"+in, target, "0;a=\r\n\r\n"+body,
				"Transfer-Encoding: chunked")
			length := fmt.Sprintf("Content-Length: %d", len(body))
			add("length after a bare line feed"+in, target, body, length, "X: y\nContent-Length: 0")
			add("length after a bare return"+in, target, body, length, "X: y\rContent-Length: 0")
			add("trailer with a length"+in, target,
				"0\r\nContent-Length: 0\r\nAuthorization: Bearer operator\r\n\r\n",
				"Transfer-Encoding: chunked", "Trailer: Authorization")
		}
	}
	all = append(all, Attempt{"framing: HTTP/2 at once", func(ctx context.Context) error {
		a, err := t.say(ctx, "PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n"+strings.Repeat("\x00", 64))
		if err != nil && strings.Contains(err.Error(), "no answer") {
			return nil // it hung up
		}
		return t.refused("", a, err)
	}})
	return all
}

// framed sends a request with a body that may hide another, and one more behind it.
func (t *Tenant) framed(name, target, body string, headers []string) Attempt {
	return Attempt{"framing: " + name, func(ctx context.Context) error {
		head := append([]string{"POST " + target + " HTTP/1.1", "Host: " + t.Host,
			"Authorization: Bearer " + t.Token}, headers...)
		// The last request has the server close the connection, if the first did not.
		text := strings.Join(head, "\r\n") + "\r\n\r\n" + body +
			t.text("GET", "/v1/health", "", "Connection: close")
		a, err := t.say(ctx, text)
		if err != nil {
			return err
		}
		if n := strings.Count(a.all, "HTTP/1.1 "); n > 2 {
			return fmt.Errorf("two requests have %d answers: %.600q", n, a.all)
		}
		return t.leaks(text, a.all)
	}}
}
