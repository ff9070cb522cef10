package fleet

import "time"

// ConditionName names what may be wrong with a worker. The names are part of the API: people alert
// on them.
type ConditionName string

// Conditions of workers.
const (
	// ConditionStoreUnreachable: several requests in a row found the object store unavailable.
	ConditionStoreUnreachable ConditionName = "store-unreachable"
	// ConditionPoolFailing: VMs can't be booted ahead of time.
	ConditionPoolFailing ConditionName = "pool-failing"
	// ConditionRecordsUnwritable: what the worker must remember of its machines can't be written.
	ConditionRecordsUnwritable ConditionName = "records-unwritable"
	// ConditionRecordsUnreadable: what it remembers of a machine can't be read.
	ConditionRecordsUnreadable ConditionName = "records-unreadable"
	// ConditionNetworkFailing: routes or rules of the machines' networks can't be set.
	ConditionNetworkFailing ConditionName = "network-failing"
	// ConditionTunnelKeyOld: the key of the tunnel to other workers can't be renewed. They are
	// reached as before.
	ConditionTunnelKeyOld ConditionName = "tunnel-key-old"
	// ConditionCertificateNotRenewed: the worker's certificate is overdue, and will expire.
	ConditionCertificateNotRenewed ConditionName = "certificate-not-renewed"
	// ConditionKeysMissing: machines with encrypted disks wait for their keys.
	ConditionKeysMissing ConditionName = "keys-missing"
	// ConditionStoreCredentialsOld: the credentials of the store are overdue, and will expire; or
	// the worker has none yet.
	ConditionStoreCredentialsOld ConditionName = "store-credentials-old"
)

// Condition is something that is wrong with a worker, as it says itself.
type Condition struct {
	Name    ConditionName `json:"name"`
	Since   time.Time     `json:"since"`
	Message string        `json:"message"`
	Remedy  string        `json:"remedy,omitempty"` // what a person does about it
}

// remedies say what a person does about each condition.
var remedies = map[ConditionName]string{
	ConditionStoreUnreachable: "check the store, and the way from this host to it: sluice doctor",
	ConditionPoolFailing:      "check the host's runtime: sluice doctor",
	ConditionRecordsUnwritable: "make room in the worker's data directory, and check that it is " +
		"writable",
	ConditionRecordsUnreadable: "drain the worker, then remove the file that the message names",
	ConditionTunnelKeyOld:      "see the worker's log; its data directory must be writable",
	ConditionCertificateNotRenewed: "read the worker's log; a worker whose certificate has " +
		"expired has to join anew: sluice worker token create",
	ConditionKeysMissing: "bring the server back; it must have the fleet's key: a worker keeps " +
		"keys in memory only",
	ConditionStoreCredentialsOld: "bring the server back, or see in its log why it can't get " +
		"credentials: sluice store credentials",
	ConditionNetworkFailing: "check that the worker may change the host's routes and nftables",
}

// NewCondition returns a condition with its remedy.
func NewCondition(name ConditionName, since time.Time, message string) Condition {
	return Condition{Name: name, Since: since, Message: message, Remedy: remedies[name]}
}

// Same reports whether both say the same to a reader.
func (c Condition) Same(o Condition) bool {
	return c.Name == o.Name && c.Message == o.Message && c.Remedy == o.Remedy &&
		c.Since.Equal(o.Since)
}
