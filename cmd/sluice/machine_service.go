package main

import (
	"bytes"
	"encoding/json"
	"fmt"
	"io"
	"os"
	"regexp"
	"strconv"
	"strings"

	"github.com/sluice-platform/sluice/api"
	"github.com/sluice-platform/sluice/internal/x/errs"
)

// serviceKey finds where one pair of a --service ends and the next begins. Only known keys count,
// so that a command may have commas in it.
var serviceKey = regexp.MustCompile(
	`(?:^|,)(name|cmd|port|dir|env|needs|check|interval|timeout|grace)=`)

// parseService reads the value of --service.
func parseService(s string) (api.Service, error) {
	var out api.Service
	var check api.Check
	keys := serviceKey.FindAllStringSubmatchIndex(s, -1)
	if len(keys) == 0 || keys[0][0] != 0 {
		return out, badService(s, "it does not begin with one of the keys")
	}
	for i, k := range keys {
		end := len(s)
		if i+1 < len(keys) {
			end = keys[i+1][0]
		}
		if err := setServiceKey(&out, &check, s[k[2]:k[3]], s[k[1]:end]); err != nil {
			return out, badService(s, err.Error())
		}
	}
	if out.Name == "" || len(out.Cmd) == 0 {
		return out, badService(s, "it has no name or no cmd")
	}
	if check.Kind != "" {
		out.Check = &check
	}
	return out, nil
}

func badService(s, why string) error {
	return errs.New(errs.Invalid, "service %q is not understood: %s", s, why).
		WithRemedy("write it like 'name=web,cmd=busybox httpd -f -p 8080,port=8080,check=http:/'")
}

func setServiceKey(out *api.Service, check *api.Check, key, value string) (err error) {
	switch key {
	case "name":
		out.Name = value
	case "cmd":
		out.Cmd, err = splitWords(value)
	case "port":
		out.HTTPPort, err = parsePort(value)
	case "dir":
		out.Dir = value
	case "needs":
		out.Needs = append(out.Needs, value)
	case "env":
		k, v, ok := strings.Cut(value, "=")
		if !ok || k == "" {
			return fmt.Errorf("env %q is not K=V", value)
		}
		if out.Env == nil {
			out.Env = map[string]string{}
		}
		out.Env[k] = v
	case "check":
		err = setCheck(check, value)
	case "interval":
		check.Interval, err = parseSeconds(value)
	case "timeout":
		check.Timeout, err = parseSeconds(value)
	case "grace":
		check.Grace, err = parseSeconds(value)
	}
	return err
}

func parsePort(s string) (int, error) {
	n, err := strconv.Atoi(s)
	if err != nil || n < 1 || n > 65535 {
		return 0, fmt.Errorf("port %q is not from 1 to 65535", s)
	}
	return n, nil
}

func parseSeconds(s string) (float64, error) {
	n, err := strconv.ParseFloat(strings.TrimSuffix(s, "s"), 64)
	if err != nil || n < 0 {
		return 0, fmt.Errorf("%q is not a number of seconds", s)
	}
	return n, nil
}

// setCheck reads http:/path, http:PORT/path, tcp, tcp:PORT and exec:command.
func setCheck(c *api.Check, s string) (err error) {
	kind, rest, _ := strings.Cut(s, ":")
	c.Kind = kind
	switch kind {
	case "http":
		port, path := rest, "/"
		if i := strings.IndexByte(rest, '/'); i >= 0 {
			port, path = rest[:i], rest[i:]
		}
		c.Path = path
		if port != "" {
			c.Port, err = parsePort(port)
		}
	case "tcp":
		if rest != "" {
			c.Port, err = parsePort(rest)
		}
	case "exec":
		c.Cmd, err = splitWords(rest)
	default:
		err = fmt.Errorf("check %q is none of http:PATH, tcp and exec:COMMAND", s)
	}
	return err
}

// splitWords splits at spaces, with single and double quotes and backslashes as in a shell; nothing
// is expanded.
func splitWords(s string) ([]string, error) {
	var words []string
	var word strings.Builder
	inWord, quote, escaped := false, rune(0), false
	for _, r := range s {
		switch {
		case escaped:
			word.WriteRune(r)
			escaped = false
		case r == '\\' && quote != '\'':
			escaped, inWord = true, true
		case quote != 0 && r == quote:
			quote = 0
		case quote == 0 && (r == '\'' || r == '"'):
			quote, inWord = r, true
		case quote == 0 && (r == ' ' || r == '\t' || r == '\n'):
			if inWord {
				words = append(words, word.String())
				word.Reset()
			}
			inWord = false
		default:
			word.WriteRune(r)
			inWord = true
		}
	}
	if quote != 0 || escaped {
		return nil, fmt.Errorf("a quote in %q is not closed", s)
	}
	if inWord {
		words = append(words, word.String())
	}
	if len(words) == 0 {
		return nil, fmt.Errorf("the command is empty")
	}
	return words, nil
}

// readServiceFile reads one service or a list of them.
func readServiceFile(d *deps, path string) ([]api.Service, error) {
	data, err := readFileOrStdin(d, path)
	if err != nil {
		return nil, errs.Wrap(errs.Invalid, err, "read service file %s", path)
	}
	var services []api.Service
	data = bytes.TrimSpace(data)
	if len(data) > 0 && data[0] == '{' {
		data = append(append([]byte{'['}, data...), ']')
	}
	dec := json.NewDecoder(bytes.NewReader(data))
	dec.DisallowUnknownFields()
	if err := dec.Decode(&services); err != nil {
		return nil, errs.Wrap(errs.Invalid, err, "service file %s", path).
			WithRemedy(
				`write it like [{"name": "web", "cmd": ["busybox", "httpd", "-f"], "http_port": 80}]`)
	}
	return services, nil
}

func readFileOrStdin(d *deps, path string) ([]byte, error) {
	if path == "-" {
		return io.ReadAll(d.stdin)
	}
	return os.ReadFile(path)
}
