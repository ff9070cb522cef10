package disk

import "slices"

// blockRange is blocks [from, to).
type blockRange struct{ from, to uint64 }

// zeroSet is a set of blocks as sorted, disjoint, non-adjacent ranges.
type zeroSet []blockRange

// add puts blocks [from, to) into the set.
func (z *zeroSet) add(from, to uint64) {
	s := *z
	i, _ := slices.BinarySearchFunc(s, from, func(r blockRange, from uint64) int {
		if r.to < from {
			return -1
		}
		return 1
	})
	j := i
	for j < len(s) && s[j].from <= to {
		from, to = min(from, s[j].from), max(to, s[j].to)
		j++
	}
	*z = slices.Replace(s, i, j, blockRange{from, to})
}

// has reports whether block is in the set.
func (z zeroSet) has(block uint64) bool {
	i, _ := slices.BinarySearchFunc(z, block, func(r blockRange, b uint64) int {
		if r.to <= b {
			return -1
		}
		return 1
	})
	return i < len(z) && z[i].from <= block
}
