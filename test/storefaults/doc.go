// Package storefaults puts disks behind a proxy that answers as proxies, portals and broken stores
// do, and sees what they make of it: every kind of answer against everything that is done with a
// disk. Only tests are in it.
package storefaults
