// Package hostnet is a worker's network: routes to the machines on it and on others, and the rules
// that keep networks apart. It works on the network namespace that it is made in, of which one
// worker is the owner.
//
// Invariants:
//
//   - A machine can send only from its own address, and only to its own network's /48; what reaches
//     a machine comes from that /48. Everything else that would be forwarded is dropped, also for
//     links not known here.
//   - From a VM's link, the worker itself accepts neighbour discovery, answers of the platform on
//     the control stream, and connections to the store gateway at the link's own address; nothing
//     else.
//   - What comes from other workers' machines comes through the tunnel, where each worker may send
//     from its own machines' addresses only. On the underlay such packets are dropped.
//   - Rules change in one transaction. At no moment does a machine have more rights than
//     afterwards, or fewer than both before and afterwards. Rules are added before routes, and
//     removed after them.
//   - Routes and rules outlive the worker daemon. Ours have a protocol number of their own and a
//     table of their own; everything else is left alone.
//
// All rules are stateless, hold no addresses themselves, and look (link, address) and (link,
// network) up in sets: the cost of a packet doesn't depend on the number of machines, and adding a
// machine adds one element to each.
package hostnet
