package disk

import (
	"testing"

	"github.com/sluice-platform/sluice/internal/disk/format"
	"github.com/sluice-platform/sluice/internal/x/errs"
)

func TestOnlyDurableDisksAreEncrypted(t *testing.T) {
	clear, sealed := &format.Head{Mode: "other"},
		&format.Head{Mode: "other", Encryption: &format.Encryption{}}
	if err := sealedMode(clear); err != nil {
		t.Errorf("a disk in the clear: %v", err)
	}
	if err := sealedMode(sealed); !errs.Is(err, errs.Unsupported) || errs.RemedyOf(err) == "" {
		t.Errorf("an encrypted disk: %v", err)
	}
	sealed.Mode = format.ModeDurable
	if err := sealedMode(sealed); err != nil {
		t.Errorf("an encrypted disk in mode durable: %v", err)
	}
}
