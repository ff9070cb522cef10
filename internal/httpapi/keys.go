package httpapi

import (
	"encoding/hex"
	"net/http"

	"github.com/sluice-platform/sluice/api"
	"github.com/sluice-platform/sluice/internal/authz"
	"github.com/sluice-platform/sluice/internal/fleet"
	"github.com/sluice-platform/sluice/internal/x/jsonhttp"
)

// keyCalls are the calls about keys of disks, and about secrets.
type keyCalls struct {
	keys    fleet.Keys
	secrets fleet.Secrets
}

const pathSecrets = "/v1/networks/{network}/apps/{app}/secrets"

// keyRoutes are the calls about what is sealed.
func (a *API) keyRoutes() []route {
	c := keyCalls{a.deps.Keys, a.deps.Secrets}
	return []route{
		{"GET", "/v1/networks", authz.Read, aboutSome, c.listNetworks},
		{"POST", "/v1/networks/{name}/rekey", authz.Admin, aboutSome, c.rekeyNetwork},
		{"POST", "/v1/machines/{ref}/disk-key", authz.Admin, aboutMachine, c.diskKey},

		{"GET", pathSecrets, authz.Read, aboutSome, c.listSecrets},
		{"PUT", pathSecrets + "/{name}", authz.Operate, aboutSome, c.setSecret},
		{"DELETE", pathSecrets + "/{name}", authz.Operate, aboutSome, c.unsetSecret},
	}
}

func (c keyCalls) listNetworks(w http.ResponseWriter, r *http.Request) {
	views, err := c.keys.Networks(r.Context())
	if err != nil {
		writeError(w, err)
		return
	}
	networks := make([]api.Network, 0, len(views))
	for _, v := range views {
		if sees(r, authz.Scope{Network: string(v.Name)}) {
			networks = append(networks, networkToAPI(v))
		}
	}
	answerPage(w, r, networks, func(n api.Network) string { return n.Name })
}

// rekeyNetwork returns once the newer key is there; the disks are changed to it after that.
func (c keyCalls) rekeyNetwork(w http.ResponseWriter, r *http.Request) {
	name := r.PathValue("name")
	if err := fleet.CheckName("network", name); err != nil {
		writeError(w, err)
		return
	}
	if err := mayDo(r, authz.Admin, authz.Scope{Network: name}); err != nil {
		writeError(w, err)
		return
	}
	v, err := c.keys.RekeyNetwork(r.Context(), fleet.NetworkName(name))
	if err != nil {
		writeError(w, err)
		return
	}
	jsonhttp.Write(w, http.StatusAccepted, networkToAPI(v))
}

// diskKey hands out a key. It is a POST, because the machine's history tells of it.
func (c keyCalls) diskKey(w http.ResponseWriter, r *http.Request) {
	v, err := c.keys.DiskKey(r.Context(), machineOf(r))
	if err != nil {
		writeError(w, err)
		return
	}
	w.Header().Set("Cache-Control", "no-store")
	jsonhttp.Write(w, http.StatusOK, api.DiskKey{Machine: string(v.Machine.ID),
		DiskURL: v.Machine.Disk.URL, Key: hex.EncodeToString(v.Key)})
}

// secretScope returns whose secrets a request is about, if the caller has a verb there.
func secretScope(r *http.Request, need authz.Verb) (fleet.SecretScope, error) {
	of := fleet.SecretScope{Network: fleet.NetworkName(r.PathValue("network")),
		App: fleet.AppName(r.PathValue("app"))}
	if err := of.Check(); err != nil {
		return of, err
	}
	return of, mayDo(r, need, authz.Scope{Network: string(of.Network), App: string(of.App)})
}

func (c keyCalls) listSecrets(w http.ResponseWriter, r *http.Request) {
	of, err := secretScope(r, authz.Read)
	if err != nil {
		writeError(w, err)
		return
	}
	secrets, err := c.secrets.Secrets(r.Context(), of)
	if err != nil {
		writeError(w, err)
		return
	}
	out := make([]api.Secret, 0, len(secrets))
	for _, s := range secrets {
		out = append(out, secretToAPI(s))
	}
	answerPage(w, r, out, func(s api.Secret) string { return s.Name })
}

func (c keyCalls) setSecret(w http.ResponseWriter, r *http.Request) {
	of, err := secretScope(r, authz.Operate)
	if err != nil {
		writeError(w, err)
		return
	}
	var body api.SetSecret
	if err := decode(w, r, maxBody, jsonhttp.Strict, &body); err != nil {
		writeError(w, err)
		return
	}
	s, err := c.secrets.SetSecret(r.Context(), of, r.PathValue("name"), []byte(body.Value))
	if err != nil {
		writeError(w, err)
		return
	}
	jsonhttp.Write(w, http.StatusOK, secretToAPI(s))
}

func (c keyCalls) unsetSecret(w http.ResponseWriter, r *http.Request) {
	of, err := secretScope(r, authz.Operate)
	if err == nil {
		err = c.secrets.UnsetSecret(r.Context(), of, r.PathValue("name"))
	}
	if err != nil {
		writeError(w, err)
		return
	}
	w.WriteHeader(http.StatusNoContent)
}

func networkToAPI(v fleet.NetworkView) api.Network {
	n := api.Network{Name: string(v.Name), Key: v.Key, Encrypted: v.Encrypted}
	for _, b := range v.Waiting {
		n.Waiting = append(n.Waiting, api.Blocker(b))
	}
	return n
}

func secretToAPI(s fleet.Secret) api.Secret {
	return api.Secret{Network: string(s.Network), App: string(s.App), Name: s.Name,
		Digest: s.Digest, SetAt: s.SetAt}
}
