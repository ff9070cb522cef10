package errs

// Wire is an error between two parts of Sluice, as JSON. The public API has a form of its own.
type Wire struct {
	Kind    Kind   `json:"kind"`
	Message string `json:"message"`
	Remedy  string `json:"remedy,omitempty"`
}

// ToWire returns what crosses of err.
func ToWire(err error) Wire {
	return Wire{Kind: KindOf(err), Message: err.Error(), Remedy: RemedyOf(err)}
}

// Err returns the error that crossed. One without a kind, which no part of Sluice sends, is
// Internal.
func (w Wire) Err() *Error {
	if w.Kind == "" {
		w.Kind = Internal
	}
	return &Error{Kind: w.Kind, Message: w.Message, Remedy: w.Remedy}
}
