package fleet

import (
	"encoding/binary"
	"net/netip"
)

// PrivateAddress returns a machine's private address on a worker:
// fdaa(16) | network(32) | worker(32) | machine(32) | 2(16).
// It changes with a move, because it names the worker.
func PrivateAddress(network, worker, machine uint32) netip.Addr {
	b := prefixBytes(network, worker)
	binary.BigEndian.PutUint32(b[10:], machine)
	b[15] = 2
	return netip.AddrFrom16(b)
}

// NetworkPrefix returns all addresses of one private network (/48).
func NetworkPrefix(network uint32) netip.Prefix {
	return netip.PrefixFrom(netip.AddrFrom16(prefixBytes(network, 0)), 48)
}

// WorkerPrefix returns the addresses of one network's machines on one worker (/80).
func WorkerPrefix(network, worker uint32) netip.Prefix {
	return netip.PrefixFrom(netip.AddrFrom16(prefixBytes(network, worker)), 80)
}

func prefixBytes(network, worker uint32) [16]byte {
	var b [16]byte
	b[0], b[1] = 0xfd, 0xaa
	binary.BigEndian.PutUint32(b[2:], network)
	binary.BigEndian.PutUint32(b[6:], worker)
	return b
}
