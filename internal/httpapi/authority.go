package httpapi

import (
	"net/http"

	"github.com/sluice-platform/sluice/api"
	"github.com/sluice-platform/sluice/internal/fleet"
	"github.com/sluice-platform/sluice/internal/x/jsonhttp"
)

// authorityCalls are the calls about who vouches for the parts of the fleet.
type authorityCalls struct{ enrolment fleet.Enrolment }

func authorityToAPI(v fleet.AuthorityView) api.Authority {
	out := api.Authority{Phase: v.Phase, PEM: v.PEM, Current: namesOf(v.Current),
		Behind: namesOf(v.Behind), Certificates: []api.AuthorityCertificate{}}
	for _, c := range v.Certs {
		out.Certificates = append(out.Certificates, api.AuthorityCertificate(c))
	}
	return out
}

func namesOf(workers []fleet.WorkerID) []string {
	names := make([]string, 0, len(workers))
	for _, w := range workers {
		names = append(names, string(w))
	}
	return names
}

func (c authorityCalls) get(w http.ResponseWriter, r *http.Request) {
	v, err := c.enrolment.Authority(r.Context())
	if err != nil {
		writeError(w, err)
		return
	}
	jsonhttp.Write(w, http.StatusOK, authorityToAPI(v))
}

// pem is for every client: certificates are no secret, and who asks knows the server by the present
// ones.
func (c authorityCalls) pem(w http.ResponseWriter, r *http.Request) {
	v, err := c.enrolment.Authority(r.Context())
	if err != nil {
		writeError(w, err)
		return
	}
	w.Header().Set("Content-Type", "application/x-pem-file")
	_, _ = w.Write([]byte(v.PEM))
}

func (c authorityCalls) rotate(w http.ResponseWriter, r *http.Request) {
	var body api.RotateAuthority
	if err := decode(w, r, maxBody, jsonhttp.Strict, &body); err != nil {
		writeError(w, err)
		return
	}
	callOf(r).acted("authority", body.Step[:min(len(body.Step), maxObjectName)])
	v, err := c.enrolment.RotateAuthority(r.Context(), body.Step, body.Force)
	if err != nil {
		writeError(w, err)
		return
	}
	jsonhttp.Write(w, http.StatusOK, authorityToAPI(v))
}
