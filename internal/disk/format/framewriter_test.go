package format

import (
	"bytes"
	"math/rand/v2"
	"testing"
)

// TestFrameWriterStopsTrying checks that noise is tried seldom, and that what compresses after it
// is compressed again within maxUntried frames.
func TestFrameWriterStopsTrying(t *testing.T) {
	t.Run("log", func(t *testing.T) { checkTries(t, KindLog, FrameSnappy) })
	t.Run("packed", func(t *testing.T) { checkTries(t, KindSeg, FrameZstd) })
}

func checkTries(t *testing.T, kind uint8, flag uint16) {
	noise, text := make([]byte, FrameSize), bytes.Repeat([]byte("what compresses "), FrameSize/16)
	rng := rand.NewChaCha8([32]byte{1})
	if _, err := rng.Read(noise); err != nil {
		t.Fatal(err)
	}
	c := codec(t)
	w := c.FrameWriter(kind, 0, nil)
	var frames []Frame
	var body []byte
	add := func(content []byte, n int) {
		for range n {
			var f Frame
			body, f = w.Append(body, content[:BlockSize], content[BlockSize:2*BlockSize],
				content[2*BlockSize:])
			frames = append(frames, f)
		}
	}
	add(text, 3)
	add(noise, 100)
	add(text, maxUntried+1)
	if frames[103].Flags == flag {
		t.Error("noise was still tried after 100 frames of it")
	}
	for i, f := range frames {
		want := text
		if i >= 3 && i < 103 {
			want = noise
		}
		if packed := f.Flags == flag; packed != (i < 3) && i < 103 {
			t.Errorf("frame %d: compressed %v", i, packed)
		}
		got, err := c.DecodeFrame(nil, body[f.Offset:f.Offset+f.Length], f, nil, i)
		if err != nil || !bytes.Equal(got, want) {
			t.Fatalf("frame %d reads back as something else: %v", i, err)
		}
	}
	if frames[len(frames)-1].Flags != flag {
		t.Error("text after noise is never compressed again")
	}
}
