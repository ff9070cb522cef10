package identity

import (
	"bytes"
	"crypto"
	"crypto/x509"
	"encoding/pem"
	"errors"

	"github.com/sluice-platform/sluice/internal/x/errs"
)

// encodeKey returns a key in PEM, which says for which join token it is; "": for none.
func encodeKey(key crypto.Signer, token string) ([]byte, error) {
	der, err := x509.MarshalPKCS8PrivateKey(key)
	if err != nil {
		return nil, errs.Wrap(errs.Internal, err, "encode a key")
	}
	block := &pem.Block{Type: "PRIVATE KEY", Bytes: der}
	if token != "" {
		block.Headers = map[string]string{tokenHeader: token}
	}
	return pem.EncodeToMemory(block), nil
}

// tokenOf returns for which join token the key is with which a file begins; "": for none.
func tokenOf(data []byte) string {
	if block, _ := pem.Decode(data); block != nil {
		return block.Headers[tokenHeader]
	}
	return ""
}

func encodeCerts(ders ...[]byte) []byte {
	var out bytes.Buffer
	for _, der := range ders {
		out.Write(pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE", Bytes: der}))
	}
	return out.Bytes()
}

// decodeCerts returns all certificates of a PEM file, of which there must be one.
func decodeCerts(data []byte) ([]*x509.Certificate, error) {
	var certs []*x509.Certificate
	for {
		var block *pem.Block
		if block, data = pem.Decode(data); block == nil {
			break
		}
		if block.Type != "CERTIFICATE" {
			continue
		}
		c, err := x509.ParseCertificate(block.Bytes)
		if err != nil {
			return nil, err
		}
		certs = append(certs, c)
	}
	if len(certs) == 0 {
		return nil, errors.New("it holds no certificate in PEM")
	}
	return certs, nil
}

// decodeKey returns the first private key of a PEM file.
func decodeKey(data []byte) (crypto.Signer, error) {
	for {
		var block *pem.Block
		if block, data = pem.Decode(data); block == nil {
			return nil, errors.New("it holds no private key in PEM")
		}
		switch block.Type {
		case "PRIVATE KEY":
			key, err := x509.ParsePKCS8PrivateKey(block.Bytes)
			if err != nil {
				return nil, err
			}
			if signer, ok := key.(crypto.Signer); ok {
				return signer, nil
			}
			return nil, errors.New("its private key can't sign")
		case "EC PRIVATE KEY":
			return x509.ParseECPrivateKey(block.Bytes)
		}
	}
}
