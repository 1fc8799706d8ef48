#!/bin/sh
# What a pod does when it is told to go (preStop). A worker tells Ray, so that its gangs move to other nodes: idle ones
# at once, others when the states of their clips are stored. A head that serves has the endpoint drained. Both then wait
# until nothing works here any more; the kubelet ends the wait when its time is up.
#   leave.sh head|worker
runs() { grep -qs "[r]ay::\($1\)" /proc/[0-9]*/cmdline; }
busy() { runs 'Rank\|GangPool\|ServeReplica'; }

busy || exit 0
if [ "$1" = head ]; then
    runs ServeReplica && serve shutdown --yes
else
    ray drain-node --address="$RAY_ADDRESS" --reason=DRAIN_NODE_REASON_PREEMPTION \
        --reason-message="the pod is told to go" --deadline-remaining-seconds=150 &  # a head that is gone answers late
fi
while busy; do sleep 1; done
