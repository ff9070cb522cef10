// Package attack makes attempts from footholds: each must be refused, for the reason that it
// should be. A foothold is a place where an attacker's code may run, such as a machine, or what an
// attacker has in his hands, such as a token of another tenant, a connection to an NBD server, or
// an archive that becomes an image.
//
// To add a foothold: write its attempts into package attempts, name it in attempts.Of, and start
// the program of test/guest/attack there with that name. One from outside of VMs is a table in
// package footholds. Seeded holes, which prove that attempts can fail, are in the tests of the
// parts whose walls they take out; those of package footholds are changes of a line of the source,
// with which test/attack/target is built.
package attack
