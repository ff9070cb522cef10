package httpapi

import (
	"net/http"
	"strconv"

	"github.com/sluice-platform/sluice/api"
	"github.com/sluice-platform/sluice/internal/fleet"
	"github.com/sluice-platform/sluice/internal/x/errs"
	"github.com/sluice-platform/sluice/internal/x/jsonhttp"
)

const (
	minImageBytes = 16 << 20
	maxImageBytes = fleet.MaxDiskGiB << 30
	maxTarBytes   = 1 << 40
)

// imageCalls are the calls about images.
type imageCalls struct{ images fleet.Images }

func (c imageCalls) listImages(w http.ResponseWriter, r *http.Request) {
	views, err := c.images.Images(r.Context())
	if err != nil {
		writeError(w, err)
		return
	}
	images := make([]api.Image, 0, len(views))
	for _, v := range views {
		images = append(images, imageToAPI(v))
	}
	answerPage(w, r, images, func(i api.Image) string { return i.Name })
}

// createImage builds an image from the body, a tar archive. A body that breaks off is an error of
// the read, so that half an upload never becomes an image.
func (c imageCalls) createImage(w http.ResponseWriter, r *http.Request) {
	name := r.PathValue("name")
	if err := fleet.CheckName("image", name); err != nil {
		writeError(w, err)
		return
	}
	size, err := strconv.ParseInt(r.URL.Query().Get("size_bytes"), 10, 64)
	if err != nil || size < minImageBytes || size > maxImageBytes {
		writeError(w, errs.New(errs.Invalid, "size_bytes %q is not from %d to %d",
			r.URL.Query().Get("size_bytes"), minImageBytes, int64(maxImageBytes)).
			WithRemedy("give the size of the image's disk, for example size_bytes=1073741824"))
		return
	}
	if size%(1<<20) != 0 {
		writeError(w, errs.New(errs.Invalid, "size_bytes %d is not a multiple of 1 MiB", size))
		return
	}
	image, err := c.images.CreateImage(r.Context(), fleet.ImageName(name), size,
		http.MaxBytesReader(w, r.Body, maxTarBytes))
	if err != nil {
		writeError(w, err)
		return
	}
	jsonhttp.Write(w, http.StatusCreated, imageToAPI(image))
}
