package fleetsim

import "tagalong.org/tagalong/directory"

type linear struct{ clock int64 }

func (l *linear) now() int64 { l.clock++; return l.clock }

func (l *linear) wrote(call int64, device string, term uint64) {}
func (l *linear) signed(t directory.SignedTransfer)            {}
func (l *linear) giving(device string, term uint64)            {}
