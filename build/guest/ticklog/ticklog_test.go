package ticklog

import "testing"

func TestReport(t *testing.T) {
	const gap = 100
	for _, c := range []struct {
		name   string
		mono   []int64
		damage func(l *Log)
		want   Report
	}{
		{"none", nil, nil, Report{}},
		{"one", []int64{5}, nil, Report{Ticks: 1}},
		{"regular", []int64{0, 10, 20, 30}, nil, Report{Ticks: 4, MaxGap: 10}},
		{"pause at the limit", []int64{0, 100}, nil, Report{Ticks: 2, MaxGap: 100}},
		{"pause", []int64{0, 10, 200, 210}, nil, Report{Ticks: 4, Gaps: 1, MaxGap: 190}},
		{"a pause that is forgotten", []int64{0, 500, 510, 520, 530, 540, 550, 560, 570, 580}, nil, Report{Ticks: 10, MaxGap: 10}},
		{"forgotten by memory", []int64{0, 10, 20, 30}, func(l *Log) { l.ring[2] = Tick{} }, Report{Ticks: 4, Missing: 1, MaxGap: 10}},
		{"old memory", []int64{0, 10, 20, 30}, func(l *Log) { l.ring[3] = l.ring[2] }, Report{Ticks: 4, Missing: 1, Doubled: 1, MaxGap: 10}},
	} {
		l := New(8, gap)
		for i, m := range c.mono {
			if tick := l.Add(m, 2*m); tick != (Tick{N: uint64(i) + 1, Mono: m, Wall: 2 * m}) {
				t.Errorf("%s: Add = %+v", c.name, tick)
			}
		}
		if c.damage != nil {
			c.damage(l)
		}
		got := l.Report()
		if got != c.want {
			t.Errorf("%s: %+v, want %+v", c.name, got, c.want)
		}
		if got.OK() != (c.damage == nil) {
			t.Errorf("%s: OK is %t", c.name, got.OK())
		}
	}
}
