// Package attack makes attempts from footholds in a real fleet: each must be refused, for the
// reason that it should be. A foothold is a place where an attacker's code may run, such as a
// machine.
//
// To add a foothold: write its attempts into package attempts, name it in attempts.Of, and start
// the program of test/guest/attack there with that name. Seeded holes, which prove that attempts
// can fail, are in the tests of the parts whose walls they take out.
package attack
