package client

import (
	"encoding/json"
	"errors"
	"io/fs"
	"os"
	"path/filepath"

	"github.com/sluice-platform/sluice/api"
)

// FleetFileName is the file in a fleet's directory that says how to reach it.
const FleetFileName = "fleet.json"

// FleetFile says how to reach a fleet. It contains a token: write it with mode 0600.
type FleetFile struct {
	URL   string `json:"url"`
	Token string `json:"token"`
	// CA is the fleet's authority, in PEM; empty if the directory has none.
	CA []byte `json:"-"`
}

// CAFileName is the file in a fleet's directory with the fleet's authority.
const CAFileName = "ca.pem"

// ReadFleetFile reads dir/fleet.json, and dir/ca.pem if there is one.
func ReadFleetFile(dir string) (FleetFile, error) {
	var f FleetFile
	path := filepath.Join(dir, FleetFileName)
	data, err := os.ReadFile(path)
	if errors.Is(err, fs.ErrNotExist) {
		return f, &api.Error{Code: "not_found", Message: "there is no fleet in " + dir,
			Cause:  path + " does not exist",
			Remedy: "bring one up with: sluice dev up --dir " + dir, Err: err}
	}
	if err == nil {
		err = json.Unmarshal(data, &f)
	}
	if err == nil && (f.URL == "" || f.Token == "") {
		err = errors.New("url or token is missing")
	}
	if err != nil {
		return f, &api.Error{Code: codeInvalid, Message: path + " can't be used",
			Cause: err.Error(), Err: err}
	}
	f.CA, err = os.ReadFile(filepath.Join(dir, CAFileName))
	if err != nil && !errors.Is(err, fs.ErrNotExist) {
		return f, &api.Error{Code: codeInvalid, Message: "the fleet's authority can't be read",
			Cause: err.Error(), Err: err}
	}
	return f, nil
}
