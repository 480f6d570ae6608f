#!/usr/bin/env perl
# Catches: thought that comes out as the answer, or an answer as thought, for a
# template that opens it; the two mixed up for a reader that is late; a client
# or an option that does not want them apart and gets them so.

use strict;
use warnings;
use FindBin;
use lib "$FindBin::Bin/lib";
use LLM;
use File::Temp;
use Test::More;

my $dir = File::Temp::tempdir(CLEANUP => 1);
open(my $f, '>', "$dir/think.jinja") or die;
print $f <<'END';
{%- for m in messages %}
{{- m.role ~ ': ' }}{% if m.reasoning_content %}{{ '<think>\n' ~ m.reasoning_content ~ '\n</think>\n\n' }}{% endif %}{{ m.content ~ '\n' }}
{%- endfor %}
{%- if add_generation_prompt %}{{ 'assistant: <think>\n' }}{% if enable_thinking is false %}{{ '\n</think>\n\n' }}{% endif %}{% endif -%}
END
close $f;

my ($true, $false) = (JSON::PP::true, JSON::PP::false);
my @model = (qw(--device null --model_name m), '--chat_template', "$dir/think.jinja");
my $t = LLM->new(engine => \@model, workers => 1, listen => 'sndbuf=4k', location => 'llm_output_buffer 16k;');
my $user = { role => 'user', content => 'x' };

sub ask {
    my (%more) = @_;
    return LLM->decode($t->post('/v1/chat/completions',
        { model => 'm', messages => [$user], max_tokens => 8, %more })->{body});
}

my $d = ask();
my $said = $d->{choices}[0]{message}{reasoning_content};
cmp_ok(length $said, '>', 20, 'thought, as the template opens it');
ok(!defined $d->{choices}[0]{message}{content}, 'and nothing behind it');
is($d->{usage}{completion_tokens_details}{reasoning_tokens}, 8, 'counted');

$d = ask(separate_reasoning => $false);
is($d->{choices}[0]{message}{content}, $said, 'not told apart');
ok(!exists $d->{choices}[0]{message}{reasoning_content}, 'no such field');
is($d->{usage}{completion_tokens_details}{reasoning_tokens}, 0, 'nor counted');

$d = ask(chat_template_kwargs => { enable_thinking => $false });
cmp_ok(length($d->{choices}[0]{message}{content} // ''), '>', 20, 'a thought that the template ends');

for my $case (['y', 'content'], ['<think>y', 'reasoning_content'], ['<think>y</think>z', 'content']) {
    $d = ask(messages => [$user, { role => 'assistant', content => $case->[0] }],
        continue_final_message => $true);
    cmp_ok(length($d->{choices}[0]{message}{ $case->[1] } // ''), '>', 20, "'$case->[0]' goes on as $case->[1]");
}

$d = LLM->decode($t->post('/v1/tokenize', { model => 'm', add_generation_prompt => $false, messages =>
    [$user, { role => 'assistant', content => 'a', reasoning_content => 'why' }] })->{body});
like(LLM->decode($t->post('/v1/detokenize', { model => 'm', tokens => $d->{tokens} })->{body})->{prompt},
    qr{<think>\nwhy\n</think>\n\na}, "a message's thought comes to the template");

my $s = $t->stream('/v1/chat/completions', { model => 'm', messages => [$user], max_tokens => 8, n => 2,
    logprobs => $true });
my (@parts, $lps);
while (defined(my $e = $s->next_event(20))) {
    last if $e eq '[DONE]';
    for my $c (@{ LLM->decode($e)->{choices} }) {
        $parts[$c->{index}] .= $c->{delta}{reasoning_content} // '';
        $parts[2] .= $c->{delta}{content} // '';
        $lps += @{ ($c->{logprobs} // {})->{content} // [] };
    }
}
is_deeply(\@parts, [$said, $said, ''], 'streamed');
is($lps, 16, 'a logprob for each token');

$t->stop('engine', 'TERM');
$t->start_engine('--reasoning', 'off');
$t->wait_ready;
$d = ask();
is($d->{choices}[0]{message}{content}, $said, 'off by the option');
$t->stop('engine', 'TERM');

# --- a late reader, and thought that ends ------------------------------------------

unlink $t->{socket};
$t->_spawn(fake => "$t->{dir}/fake.log", LLM->build . '/fake_engine', $t->{socket},
    qw(--model m --tokens 6000 --think 3000 --bytes 60));
$t->wait_for(sub { -S $t->{socket} }, 5);
chmod 0777, $t->{socket};
$t->wait_ready;
my %long = (model => 'm', messages => [$user], max_tokens => 6000);
my $r = $t->post("/v1/chat/completions", { %long });
my $whole = LLM->decode($r->{body});
my $m = $whole->{choices}[0]{message};
is(length($m->{reasoning_content}), 3000 * 60, 'half of it thought');
is(length($m->{content}), 3000 * 60, 'half of it said');
is($whole->{usage}{completion_tokens_details}{reasoning_tokens}, 3000, 'counted');
for my $n (1, 2) {
    my $s = $t->stream('/v1/chat/completions', { %long, n => $n, stream_options => { include_usage => $true } },
        rcvbuf => 4096);
    select undef, undef, undef, 0.3; # late from the start
    my (%got, $usage);
    while (defined(my $e = $s->next_event(20))) {
        last if $e eq '[DONE]';
        my $d = LLM->decode($e);
        $usage = $d->{usage} // $usage;
        for my $c (@{ $d->{choices} }) {
            $got{$c->{index}}{$_} .= $c->{delta}{$_} // '' for qw(reasoning_content content);
        }
    }
    is($got{$_}{reasoning_content} eq $m->{reasoning_content} && $got{$_}{content} eq $m->{content}, 1,
        "n $n: choice $_ to a late reader") for 0 .. $n - 1;
    is($usage->{completion_tokens_details}{reasoning_tokens}, 3000 * $n, "n $n: usage");
}
$t->stop('fake', 'KILL');

$t->done;
