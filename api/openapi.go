package api

import _ "embed" // the document is served as it is

//go:embed openapi.yaml
var openAPI string

// OpenAPI returns the OpenAPI 3 document of the whole API, as YAML.
func OpenAPI() string { return openAPI }
