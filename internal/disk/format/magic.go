package format

// MagicLen is how many bytes of an object IsObject looks at.
const MagicLen = 8

// IsObject reports whether an object that begins with b is one that this package encodes, and no
// document.
func IsObject(b []byte) bool {
	if len(b) < MagicLen {
		return false
	}
	switch string(b[:MagicLen]) {
	case logMagic, rootMagic, pagesMagic, traceMagic:
		return true
	}
	return false
}
