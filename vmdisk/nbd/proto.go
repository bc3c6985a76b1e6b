package nbd

// The numbers of the protocol, as in the NBD project's doc/proto.md.

const (
	magicHello      uint64 = 0x4e42444d41474943 // "NBDMAGIC"
	magicOption     uint64 = 0x49484156454f5054 // "IHAVEOPT"
	magicOptReply   uint64 = 0x0003e889045565a9
	magicRequest    uint32 = 0x25609513
	magicSimple     uint32 = 0x67446698
	magicStructured uint32 = 0x668e33ef
)

// Handshake flags; the client answers with the same bits.
const (
	flagFixedNewstyle uint16 = 1 << 0
	flagNoZeroes      uint16 = 1 << 1
)

// Transmission flags.
const (
	flagHasFlags    uint16 = 1 << 0
	flagReadOnly    uint16 = 1 << 1
	flagFlush       uint16 = 1 << 2
	flagFUA         uint16 = 1 << 3
	flagTrim        uint16 = 1 << 5
	flagWriteZeroes uint16 = 1 << 6
	flagDF          uint16 = 1 << 7
	flagMultiConn   uint16 = 1 << 8
	flagCache       uint16 = 1 << 10
)

// Options.
const (
	optExportName      uint32 = 1
	optAbort           uint32 = 2
	optList            uint32 = 3
	optInfo            uint32 = 6
	optGo              uint32 = 7
	optStructuredReply uint32 = 8
	optListMetaContext uint32 = 9
	optSetMetaContext  uint32 = 10
)

// Replies to options.
const (
	repAck         uint32 = 1
	repServer      uint32 = 2
	repInfo        uint32 = 3
	repMetaContext uint32 = 4
	repErrUnsup    uint32 = 1<<31 + 1
	repErrInvalid  uint32 = 1<<31 + 3
	repErrUnknown  uint32 = 1<<31 + 6
	repErrTooBig   uint32 = 1<<31 + 9
)

// Kinds of information.
const (
	infoExport    uint16 = 0
	infoName      uint16 = 1
	infoBlockSize uint16 = 3
)

// Commands.
const (
	cmdRead        uint16 = 0
	cmdWrite       uint16 = 1
	cmdDisc        uint16 = 2
	cmdFlush       uint16 = 3
	cmdTrim        uint16 = 4
	cmdCache       uint16 = 5
	cmdWriteZeroes uint16 = 6
	cmdBlockStatus uint16 = 7
)

// Command flags.
const (
	cmdFlagFUA    uint16 = 1 << 0
	cmdFlagNoHole uint16 = 1 << 1
	cmdFlagDF     uint16 = 1 << 2
	cmdFlagReqOne uint16 = 1 << 3
)

// Structured replies.
const (
	chunkFlagDone    uint16 = 1 << 0
	chunkNone        uint16 = 0
	chunkOffsetData  uint16 = 1
	chunkBlockStatus uint16 = 5
	chunkError       uint16 = 1<<15 + 1
)

// Extent flags of base:allocation.
const (
	stateHole uint32 = 1 << 0
	stateZero uint32 = 1 << 1
)

// Errors in replies.
const (
	nbdOK      uint32 = 0
	nbdEPERM   uint32 = 1
	nbdEIO     uint32 = 5
	nbdENOMEM  uint32 = 12
	nbdEINVAL  uint32 = 22
	nbdENOSPC  uint32 = 28
	nbdENOTSUP uint32 = 95
)

const (
	// maxData is the most bytes that one READ or WRITE may carry.
	maxData = 32 << 20
	// maxOption is the most bytes of an option that we take in; it holds a name and some queries.
	maxOption = 64 << 10
	// maxOptions ends a handshake that gets nowhere.
	maxOptions = 1024
	// maxString is the protocol's limit for names and queries.
	maxString = 4096
	// maxExtents is the most extents that one BLOCK_STATUS reply carries (64 KiB).
	maxExtents = 8192
	// requestSize and simpleSize are the lengths of a request's and a simple reply's header.
	requestSize = 28
	simpleSize  = 16
	// chunkSize is the length of a structured reply's header.
	chunkSize = 20
	// contextID names base:allocation in replies.
	contextID = 1
	// contextName is the only meta context there is.
	contextName = "base:allocation"
)
