// Package s3role makes sessions of a role that can do less than the role, for who is given one.
//
// Invariants: a session can do no more than a worker needs, whatever the role may. No error has a
// secret.
package s3role

import (
	"context"
	"encoding/json"
	"errors"
	"net/http"
	"strings"
	"sync"
	"time"

	"github.com/aws/aws-sdk-go-v2/aws"
	"github.com/aws/aws-sdk-go-v2/service/sts"
	"github.com/aws/smithy-go"
	"github.com/aws/smithy-go/logging"

	"github.com/sluice-platform/sluice/internal/blob/s3blob"
	"github.com/sluice-platform/sluice/internal/x/errs"
)

const (
	assumeFor = 8 * time.Second // shorter than a worker waits
	// between two sessions of one worker: each can be used after the worker was shut out
	betweenSessions = time.Second
	// shortest term that STS gives
	minTerm = 15 * time.Minute
	maxTerm = 12 * time.Hour
)

// Role is what workers get sessions of.
type Role struct {
	ARN      string        // "": none
	Endpoint string        // of STS; "": that of AWS in Region
	Region   string        // "": that of the store
	Term     time.Duration // of a session
}

// Assumer makes sessions of a role, each for a name. Safe for concurrent use.
type Assumer struct {
	role   Role
	policy string
	client *sts.Client
	keys   s3blob.Keys

	mu   sync.Mutex
	last map[string]time.Time
}

// New returns what makes sessions for a store, and asks STS with keys. Invalid: no such role can be
// assumed.
func New(role Role, store s3blob.Config, keys s3blob.Keys) (*Assumer, error) {
	partition := strings.Split(role.ARN, ":")
	if len(partition) < 6 || partition[0] != "arn" {
		return nil, errs.New(errs.Invalid, "%q is no ARN of a role", role.ARN).
			WithRemedy("give --store-role-arn as arn:aws:iam::ACCOUNT:role/NAME")
	}
	if role.Term < minTerm || role.Term > maxTerm {
		return nil, errs.New(errs.Invalid, "a session's term of %s is not between %s and %s",
			role.Term, minTerm, maxTerm).WithRemedy("set --store-role-term to one that is")
	}
	policy, err := sessionPolicy(partition[1], store.Bucket, store.Prefix)
	if err != nil {
		return nil, err
	}
	if role.Region == "" {
		role.Region = store.Region
	}
	reach := store
	reach.Endpoint = role.Endpoint
	transport, err := reach.Transport()
	if err != nil {
		return nil, err
	}
	options := sts.Options{Region: role.Region, Credentials: signing{keys},
		HTTPClient: &http.Client{Transport: transport}, Retryer: aws.NopRetryer{},
		Logger: logging.Nop{}}
	if role.Endpoint != "" {
		options.BaseEndpoint = aws.String(role.Endpoint)
	}
	return &Assumer{role: role, policy: policy, client: sts.New(options), keys: keys,
		last: map[string]time.Time{}}, nil
}

// Session returns a key of the role for a worker. It is logged at STS under the worker's name.
func (a *Assumer) Session(ctx context.Context, worker string) (s3blob.Key, error) {
	if !a.turn(worker, time.Now()) {
		return s3blob.Key{}, errs.New(errs.Unavailable,
			"worker %s has got a session of the store's role a moment ago", worker).
			WithRemedy("ask again in %s", betweenSessions)
	}
	key, err := a.begin(ctx, worker)
	if err != nil {
		a.mu.Lock()
		delete(a.last, worker) // it got none
		a.mu.Unlock()
	}
	return key, err
}

// begin asks STS for a session.
func (a *Assumer) begin(ctx context.Context, worker string) (s3blob.Key, error) {
	ctx, cancel := context.WithTimeout(ctx, assumeFor)
	defer cancel()
	used, err := a.keys.Key(ctx)
	if err != nil {
		return s3blob.Key{}, err
	}
	out, err := a.assume(ctx, worker)
	if refusesKey(err) && a.keys.Others(ctx, used) {
		out, err = a.assume(ctx, worker)
	}
	if err != nil {
		return s3blob.Key{}, a.failure(err)
	}
	c := out.Credentials
	if c == nil || aws.ToString(c.AccessKeyId) == "" || aws.ToString(c.SecretAccessKey) == "" ||
		c.Expiration == nil {
		return s3blob.Key{}, errs.New(errs.Unavailable, "STS answered without a whole session").
			WithRemedy("check --store-sts-endpoint, and proxies on the way")
	}
	return s3blob.Key{AccessKey: *c.AccessKeyId, SecretKey: *c.SecretAccessKey,
		SessionToken: aws.ToString(c.SessionToken), Expires: *c.Expiration}, nil
}

func (a *Assumer) assume(ctx context.Context, worker string) (*sts.AssumeRoleOutput,
	error) {
	name := worker
	if len(name) < 2 {
		name = "worker-" + name // STS wants two characters
	}
	return a.client.AssumeRole(ctx, &sts.AssumeRoleInput{RoleArn: &a.role.ARN,
		RoleSessionName: &name, Policy: &a.policy,
		DurationSeconds: aws.Int32(int32(a.role.Term / time.Second))})
}

// turn reports whether it is a worker's turn to get a session, and notes it.
func (a *Assumer) turn(worker string, now time.Time) bool {
	a.mu.Lock()
	defer a.mu.Unlock()
	if last, ok := a.last[worker]; ok && now.Sub(last) < betweenSessions {
		return false
	}
	a.last[worker] = now
	return true
}

// refusesKey reports whether STS refused what the server signed with, and not what it asked for.
func refusesKey(err error) bool {
	var said smithy.APIError
	if !errors.As(err, &said) {
		return false
	}
	switch said.ErrorCode() {
	case "InvalidClientTokenId", "InvalidAccessKeyId", "SignatureDoesNotMatch", "ExpiredToken",
		"ExpiredTokenException":
		return true
	}
	return false
}

func (a *Assumer) failure(err error) error {
	var said smithy.APIError
	if !errors.As(err, &said) {
		return errs.Wrap(errs.Unavailable, err, "no answer of STS").
			WithRemedy("check --store-sts-endpoint, and the way from the server to it")
	}
	// Unavailable also if it is refused: to a worker, Denied means that it is shut out itself.
	return errs.New(errs.Unavailable, "STS gives no session of %s: %s: %s", a.role.ARN,
		said.ErrorCode(), said.ErrorMessage()).
		WithRemedy("let the server's key assume the role, for as long as --store-role-term: " +
			"look at the role's trust policy and longest session")
}

// signing shows the server's keys to the SDK.
type signing struct{ keys s3blob.Keys }

// Retrieve implements aws.CredentialsProvider.
func (s signing) Retrieve(ctx context.Context) (aws.Credentials, error) {
	k, err := s.keys.Key(ctx)
	return aws.Credentials{AccessKeyID: k.AccessKey, SecretAccessKey: k.SecretKey,
		SessionToken: k.SessionToken}, err
}

type statement struct {
	Effect    string
	Action    []string
	Resource  []string
	Condition map[string]map[string]string `json:",omitempty"`
}

// sessionPolicy is what a worker may do at most: read, write and list below disks/ of the pool. A
// worker deletes nothing, and has no business with the audit log and the pool's own records.
//
// A store tells that an object is missing (404) only to who may list, and a read has no prefix. So
// listing is allowed without one, too: at AWS a worker can list names in all of the bucket.
func sessionPolicy(partition, bucket, prefix string) (string, error) {
	below := "disks/*"
	if prefix != "" {
		below = prefix + "/" + below
	}
	arn := "arn:" + partition + ":s3:::" + bucket
	list := func(operator, value string) statement {
		return statement{Effect: "Allow", Action: []string{"s3:ListBucket"},
			Resource:  []string{arn},
			Condition: map[string]map[string]string{operator: {"s3:prefix": value}}}
	}
	b, err := json.Marshal(struct {
		Version   string
		Statement []statement
	}{"2012-10-17", []statement{
		{Effect: "Allow", Action: []string{"s3:GetObject", "s3:PutObject"},
			Resource: []string{arn + "/" + below}},
		list("StringLike", below), list("Null", "true"),
	}})
	if err != nil {
		return "", errs.Wrap(errs.Internal, err, "encode the policy of a session")
	}
	return string(b), nil
}
