package machine

import (
	"slices"
	"strings"
	"testing"

	"github.com/getkin/kin-openapi/openapi3"

	"github.com/sluice-platform/sluice/api"
)

// TestPassedOnCallsAreInTheDocument: what a platform answers for the fleet's API is in the API's
// document, and the document promises nothing else in its name.
func TestPassedOnCallsAreInTheDocument(t *testing.T) {
	const below = "/v1/machines/{ref}/"
	doc, err := openapi3.NewLoader().LoadFromData([]byte(api.OpenAPI()))
	if err != nil {
		t.Fatal(err)
	}
	var promised, served []string
	for path, item := range doc.Paths.Map() {
		for method, op := range item.Operations() {
			if slices.Contains(op.Tags, "platform") {
				promised = append(promised, method+" "+strings.TrimPrefix(path, below))
			}
		}
	}
	for _, r := range (&Platform{}).machineRoutes() {
		method := r.method
		if method == "" {
			method = "GET" // the document says in words that it is all of them
		}
		served = append(served, method+" "+strings.ReplaceAll(r.path, "...}", "}"))
	}
	slices.Sort(promised)
	slices.Sort(served)
	if !slices.Equal(promised, served) {
		t.Errorf("api/openapi.yaml has\n%s\nthe platform serves\n%s", strings.Join(promised, "\n"),
			strings.Join(served, "\n"))
	}
}
