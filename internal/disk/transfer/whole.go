package transfer

import (
	"encoding/binary"
	"errors"
	"io"
	"os"

	"github.com/sluice-platform/sluice/internal/x/errs"
)

// checkFormat lets through what qemu-img reads and writes as one file. Others of its formats are
// protocols and filters.
func checkFormat(format string) error {
	switch format {
	case "raw", "qcow2", "qcow", "qed", "vdi", "vhdx", "vmdk", "vpc", "parallels":
		return nil
	}
	return errs.New(errs.Invalid, "there is no image format %q", format).
		WithRemedy("use one of: raw, qcow2, qcow, qed, vdi, vhdx, vmdk, vpc, parallels")
}

func notWhole(file, format, other string) error {
	return errs.New(errs.Invalid, "image %s is not whole: it refers to %s", file, other).
		WithRemedy("if you trust it, make it whole: qemu-img convert -O %s %s WHOLE", format, file)
}

// checkWhole refuses what is seen from an image's first bytes to refer to other files.
func checkWhole(file, format string) error {
	f, err := os.Open(file)
	if err != nil {
		return errs.Wrap(errs.Denied, err, "open the image")
	}
	defer f.Close()
	head := make([]byte, 80)
	n, err := io.ReadFull(f, head)
	if err != nil && !errors.Is(err, io.EOF) && !errors.Is(err, io.ErrUnexpectedEOF) {
		return errs.Wrap(errs.Unavailable, err, "read the image")
	}
	other := ""
	switch format {
	case "qcow2":
		other = qcow2Refers(head[:n])
	case "vmdk":
		other = vmdkRefers(head[:n])
	}
	if other != "" {
		return notWhole(file, format, other)
	}
	return nil
}

// qcow2Refers says what a qcow2 image refers to, from its header.
func qcow2Refers(head []byte) string {
	const dataFileBit = 1 << 2 // of the incompatible features
	be := binary.BigEndian
	switch {
	case len(head) < 80: // too short to be one, which qemu-img says
		return ""
	case be.Uint64(head[8:]) != 0:
		return "a backing file"
	case be.Uint32(head[4:]) >= 3 && be.Uint64(head[72:])&dataFileBit != 0:
		return "a data file"
	}
	return ""
}

// vmdkRefers says what a VMDK image refers to: a descriptor names its extents, and only an image
// that begins with the header of a sparse extent, and says its own size there, is in one file.
func vmdkRefers(head []byte) string {
	switch {
	case len(head) < 20:
		return ""
	case string(head[:4]) == "KDMV" &&
		binary.LittleEndian.Uint64(head[12:]) != 0, string(head[:4]) == "COWD":
		return ""
	}
	return "the extents that its descriptor names"
}
