// Package fleetsim lives whole fleets through bad luck: it is tests only.
package fleetsim
