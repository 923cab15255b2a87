"""A load test that can fail: ghz drives a service, and what it was answered is judged.

    run         one load test, top to bottom             (read this first)
    profile     what is sent: a configuration file of ghz, and how many requests it means
    tenants     who asks, where many do: Zipf's law
    calls       what ghz saw: answers by code, latencies
    counters    what the service says it did: admitted, denied, by policy; how full its windows were
    watch       the service's counters, read again and again while ghz runs
    thresholds  the judge
    result      all of it as one value, and as JSON
    report      as one page of HTML, with its charts (charts)

ghz counts a denial as OK, so what it saw says nothing about limits: those are judged by the service's own counters. Profiles
and thresholds are in deploy/loadtest. Nothing here is imported by the service.
"""
