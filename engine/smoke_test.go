package engine

import (
	"fmt"
	"testing"
)

func TestSmoke(t *testing.T) {
	rs, rep := Load(Bytes("a.yml", []byte(`rules:
- name: Block Port Scanner
  type: TCP
  expression: |
    SYN && !ACK && PayloadSize == 0
  severity: high
  threshold: 50
  threshold_window: 10
  actions:
    - type: iptables_block
      config:
        target: source
        duration: 1h
- name: dns
  type: DNS
  expression: |
    len(Questions) > 0 &&
      len(Questions[0].Nme) > 100
  threshhold: 2
- name: dns2
  type: DNS
  expression: !QR && len(Questions) > 0
- name: tcp
  type: tpc
  expression: DstPort = 22
- name: tcp2
  type: tcp
  expression: DstPrt == 22
- name: tcp2
  type: tcp
  expression: MatchesPattern(SrcIP, "(") && HourOfDay() == 3
  actions:
    - type: block
      target: source
    - type: iptables_block
      config:
        target: sorce
        duration: -1h
`)))
	for _, p := range rep.Errors {
		fmt.Println(p)
	}
	for _, p := range rep.Warnings {
		fmt.Println("W", p)
	}
	_ = rs
}
