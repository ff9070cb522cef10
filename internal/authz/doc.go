// Package authz decides who may do what. It is pure: it knows verbs, scopes and subjects, and
// neither requests nor records.
//
// A subject holds grants. A grant is a verb on a scope: the whole fleet, a network, an app, or an
// app in a network. A request needs a verb on an object, and Decide is the only function that says
// whether that is so. Who calls it shows a refusal as the Decision says: Hidden must look as if the
// object weren't there.
package authz
