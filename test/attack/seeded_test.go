package attack

import "testing"

// TestHolesOfTheAPIAreFound: with a wall taken out of the API, a tenant gets on. It proves that the
// attempts can fail; so do the tests below.
func TestHolesOfTheAPIAreFound(t *testing.T) {
	const dir = "internal/httpapi/"
	for name, holes := range map[string][]Hole{
		"machines": {
			{"no decision on machines", dir + "authorize.go",
				"scopeOf(m)}\n\t\treturn refusal(c.subject, need, c.object)",
				"scopeOf(m)}\n\t\treturn nil",
				[]string{}},
			{"all machines seen", dir + "authorize.go",
				"func(m fleet.Machine) bool { return sees(r, scopeOf(m)) }",
				"func(fleet.Machine) bool { return true }",
				[]string{"GET /v1/machines/{ref} id", "GET /v1/machines/{ref} name",
					"GET /v1/machines/{ref} app and name", "GET /v1/machines/{ref}/logs id",
					"GET /v1/machines/{ref}/events name",
					"header X-HTTP-Method-Override of a read"}},
		},
		"hidden": {
			{"what is hidden is 403", dir + "authorize.go",
				"func(m fleet.Machine) bool { return sees(r, scopeOf(m)) }",
				"func(fleet.Machine) bool { return true }",
				[]string{"GET /v1/machines/{ref} id", "POST /v1/machines/{ref}/stop name"}},
			{"no decision on moves", dir + "authorize.go", "if !sees(r, s) {", "if false {",
				[]string{"GET /v1/moves/{id} id"}},
		},
		"the rest": {
			{"no decision on the fleet", dir + "authorize.go",
				"if err := refusal(c.subject, need, c.object); err != nil {",
				"if err := refusal(c.subject, need, c.object); err != nil && of != aboutFleet {",
				[]string{"GET /v1/workers", "POST /v1/drains"}},
			{"lists of all machines", dir + "machines.go",
				"if !sees(r, scopeOf(v.Machine)) {", "if false {", []string{"list /v1/machines"}},
			// the same list again: it asks for the machines of the caller's networks alone
			{"lists of all networks", dir + "machines.go",
				`if g.Network == "" {`, "if true {", []string{"list /v1/machines"}},
			{"anything may be granted", dir + "authorize.go",
				"if callOf(r).subject.On(s) >= need {", "if true {",
				[]string{"make a token of another network", "make a token of the fleet"}},
			{"chunks beside a length", dir + "observe.go", "len(r.TransferEncoding) > 0", "false",
				[]string{"framing: length and chunks to the API, the API's"}},
			{"a token in the query", dir + "auth.go", "token := jsonhttp.Bearer(r)",
				`token := r.URL.Query().Get("token")
				 if token == "" { token = jsonhttp.Bearer(r) }`,
				[]string{"header token in the query"}},
		},
	} {
		t.Run(name, func(t *testing.T) {
			mustBeFound(t, tenantOf(t, startTarget(t, "api", "tcp", holes)).Attempts(), holes)
		})
	}
}

// TestHolesOfTheNBDServerAreFound: likewise, of what an NBD server checks.
func TestHolesOfTheNBDServerAreFound(t *testing.T) {
	const dir = "internal/disk/nbd/"
	// Ranges are checked by the disk, too: a server that doesn't is not found by this.
	holes := []Hole{
		{"any name is taken", dir + "server.go", `	if name == "" {`, `	if name != "*" {`,
			[]string{"nbd: GO of a name of another", "nbd: the old way, for a name of another"}},
		{"reads of any length", dir + "session.go", "r.cmd == cmdRead && r.length > maxRequest",
			"false", []string{"nbd: read of 33 MiB"}},
		{"unknown flags", dir + "session.go", "!known || r.flags&^allowed != 0",
			"!known || allowed == 0",
			[]string{"nbd: write with unknown flags"}},
	}
	mustBeFound(t, nbdOf(t, startTarget(t, "nbd", "unix", holes)).Attempts(), holes)
}

// TestHolesOfTheBuilderAreFound: likewise, of what is looked at in an archive.
func TestHolesOfTheBuilderAreFound(t *testing.T) {
	const dir = "internal/image/"
	holes := []Hole{
		{"links lead out", dir + "tree.go", "Resolve: unix.RESOLVE_IN_ROOT | ", "Resolve: ",
			[]string{"image: a file through a link to the host",
				"image: a hard link through a link"}},
		{"parents in names", dir + "tree.go", `if element == ".." {`, `if element == "..." {`,
			[]string{"image: a name with its parent"}},
		{"digests", dir + "source.go", `want.Algorithm != "sha256" || got != want.Hex`, "false",
			[]string{"image: oci: a layer of another digest"}},
		{"whiteouts of parents", dir + "unpack.go",
			`targetBase == "." || targetBase == ".." ||`, `targetBase == "." ||`,
			[]string{"image: layer: a whiteout of the parent"}},
	}
	mustBeFound(t, imageOf(t, startTarget(t, "image", "unix", holes)).Attempts(), holes)
}
