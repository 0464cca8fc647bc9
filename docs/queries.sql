-- Ten questions an analyst asks first. Run one: deepintuit sql "select ..." --conf conf/local.yaml

-- 1. How many videos got which label (or labels, where they are independent), and how many wait for a person?
select if(abstain, 'needs review', array_join(labels, ' + ')) as decision, count(*) as videos, round(avg(top_prob), 3) as mean_top_prob
from current_scores group by 1 order by videos desc;

-- 2. Which videos should a person look at first?
select video_id, uri, reason, round(top_prob, 3) as top_prob, prediction_set from current_scores
order by abstain desc, top_prob limit 20;

-- 3. Why was this video decided so? (its traces, beside the final probabilities)
select t.video_id, t.rollout_index, array_join(t.labels, ' + ') as provisional, t.observation, t.think, s.probs
from current_traces t join current_scores s on s.video_id = t.video_id and s.input_digest = t.input_digest
join live l on l.task = s.task and l.recipe_id = t.recipe_id order by t.video_id, t.rollout_index limit 20;

-- 4. What was refused, and why?
select `table`, reason, count(*) as rows, min(message) as example from quarantine group by 1, 2 order by rows desc;

-- 5. How often do rollouts fail, and how?
select recipe_id, status, count(*) as traces, round(avg(tokens), 1) as mean_tokens from current_traces
group by 1, 2 order by traces desc;

-- 6. Where do the rollouts of a video disagree?
select video_id, rollouts, round(agreement, 2) as agreement, probs from current_scores order by agreement limit 20;

-- 7. Which files held content that was known under another name?
select f.uri, v.uri as first_seen_as from files f join videos v on v.video_id = f.video_id where f.uri <> v.uri;

-- 8. Where do the live decisions contradict the labels?
select array_join(l.labels, ' + ') as truth, if(s.abstain, 'abstained', array_join(s.labels, ' + ')) as decision, count(*) as videos
from current_scores s join current_labels l on l.video_id = s.video_id and l.task = s.task
group by 1, 2 order by truth, videos desc;

-- 9. How fast was each wave of rollouts?
select run_id, event, counts['videos'] as videos, round(counts['videos'] / seconds, 2) as videos_per_second,
       round(counts['tokens'] / seconds, 1) as tokens_per_second
from runs where event like 'wave %' and counts['rollouts'] > 0 order by at desc;

-- 10. How good were the versions at every evaluation, and how far from others?
select r.at, r.job, m.split, m.method, m.minus, m.version, m.name, round(m.value, 4) as value, round(m.low, 4) as low,
       round(m.high, 4) as high, m.videos
from metrics m join runs r on r.run_id = m.run_id and r.event = 'started'
where m.slice = 'all' and m.name in ('accuracy', 'macro_f1', 'ece', 'nll') and m.split is not null
order by r.at desc, m.method, m.minus, m.name;
