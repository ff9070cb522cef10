package nbd

// Numbers of the NBD protocol, as its specification names them without NBD_.
const (
	initMagic   = 0x4e42444d41474943 // "NBDMAGIC"
	optMagic    = 0x49484156454F5054 // "IHAVEOPT"
	repMagic    = 0x0003e889045565a9
	reqMagic    = 0x25609513
	simpleMagic = 0x67446698
	chunkMagic  = 0x668e33ef

	flagFixedNewstyle = 1 << 0 // both ways
	flagNoZeroes      = 1 << 1

	optExportName      = 1
	optAbort           = 2
	optList            = 3
	optStartTLS        = 5
	optInfo            = 6
	optGo              = 7
	optStructuredReply = 8
	optListMeta        = 9
	optSetMeta         = 10

	repAck         = 1
	repServer      = 2
	repInfo        = 3
	repMetaContext = 4
	repErrUnsup    = 1<<31 | 1
	repErrInvalid  = 1<<31 | 3
	repErrTLSReqd  = 1<<31 | 5
	repErrUnknown  = 1<<31 | 6
	repErrTooBig   = 1<<31 | 9

	infoExport      = 0
	infoName        = 1
	infoDescription = 2
	infoBlockSize   = 3

	exportHasFlags    = 1 << 0
	exportReadOnly    = 1 << 1
	exportFlush       = 1 << 2
	exportFUA         = 1 << 3
	exportTrim        = 1 << 5
	exportWriteZeroes = 1 << 6
	exportDF          = 1 << 7
	exportMultiConn   = 1 << 8
	exportFastZero    = 1 << 11

	cmdRead        = 0
	cmdWrite       = 1
	cmdDisc        = 2
	cmdFlush       = 3
	cmdTrim        = 4
	cmdWriteZeroes = 6
	cmdBlockStatus = 7

	cmdFlagFUA      = 1 << 0
	cmdFlagNoHole   = 1 << 1
	cmdFlagDF       = 1 << 2
	cmdFlagReqOne   = 1 << 3
	cmdFlagFastZero = 1 << 4

	chunkDone        = 1 << 0
	chunkNone        = 0
	chunkOffsetData  = 1
	chunkOffsetHole  = 2
	chunkBlockStatus = 5
	chunkError       = 1<<15 | 1

	stateHole = 1 << 0
	stateZero = 1 << 1

	baseAllocation = "base:allocation"
	baseNamespace  = "base:"
	baseContext    = 1 // the id that we give to base:allocation

	errPerm     = 1
	errIO       = 5
	errNoMem    = 12
	errInval    = 22
	errNoSpace  = 28
	errOverflow = 75
	errNotSup   = 95
	errShutdown = 108
)

const (
	requestLen = 28
	simpleLen  = 16
	chunkLen   = 20
	maxOption  = 64 << 10 // bytes of one option; the longest that make sense are names of 4096
	maxOptions = 128      // in one negotiation
	// bytes of one READ or WRITE; what the specification tells clients to expect
	maxRequest    = 32 << 20
	maxExtents    = 4096     // in one BLOCK_STATUS answer
	preferredSize = 64 << 10 // bytes; a frame of the disk
	smallestHole  = 64 << 10 // bytes; below it a hole in a READ is sent as zeros
	maxName       = 4096     // bytes of a string
)
