// Package chaos kills and cuts real processes at random moments of a drain, and checks that no
// acknowledged record is lost, no machine runs twice, and the drain ends or names what blocks it.
//
// SLUICE_CHAOS_ROUNDS sets the number of rounds (default 50), SLUICE_CHAOS_SEED the seed, which is
// printed.
package chaos
