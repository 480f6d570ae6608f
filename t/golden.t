#!/usr/bin/env perl
# The text over HTTP is the reference's: the published greedy story, and the
# golden files as far as their margins are wider than what rounding can change.

use strict;
use warnings;
use FindBin;
use lib "$FindBin::Bin/lib";
use LLM;
use Test::More;

my $model = LLM->model_or_skip('stories260K/stories260K.gguf');
my $data = LLM->data . '/models';

sub slurp { open my $f, '<', $_[0] or die "$_[0]: $!"; local $/; <$f> }

my $t = LLM->new(engine => ['--model', $model, '--kv_type', 'f32']);
my $want = slurp("$data/stories260K/expected-greedy-200.txt");
my $r = $t->post('/v1/completions', { model => 'stories260K', prompt => '',
    temperature => 0, max_tokens => 200 });
my $text = $t->decode($r->{body})->{choices}[0]{text};
utf8::encode($text);
$want =~ s/\s+$//;
is(substr($text, 0, length $want), $want, 'the published story');
$t->stop(engine => 'TERM');

# file, instruction set (others round activations for numbers of few bits),
# largest margin below which a greedy choice may differ
my @files = (
    ['stories260K/stories260K', 'auto', 0.001],
    ['TinyStories-656K/TinyStories-656K-F16', 'auto', 0.01],
    ['TinyStories-656K/TinyStories-656K-Q8_0', 'ref', 0.01],
    ['TinyStories-656K/TinyStories-656K-Q4_0', 'ref', 0.01],
    ['TinyStories-656K/TinyStories-656K-Q5_1', 'ref', 0.01],
    ['TinyStories-656K/TinyStories-656K-Q4_K_M', 'ref', 0.01],
);
for my $row (@files) {
    my ($file, $isa, $margin) = @$row;
    my ($name) = $file =~ m{([^/]+)$};
    $t->{engine} = ['--model', "$data/$file.gguf", '--kv_type', 'f32', '--cpu_isa', $isa];
    $t->start_engine;
    $t->wait_ready;
    my $golden = $t->decode(slurp("$data/$file.golden.json"));
    for my $case (@{ $golden->{cases} }) {
        my @margins = @{ $case->{greedy_margins} };
        my $sure = 0;
        $sure++ while $sure < @margins && $margins[$sure] > $margin;
        my $c = $t->decode($t->post('/v1/completions', { model => $name,
            prompt => $case->{prompt}, temperature => 0, logprobs => 0,
            max_tokens => $sure || 1 })->{body});
        my $got = $c->{choices}[0]{text};
        is($c->{usage}{prompt_tokens}, scalar @{ $case->{prompt_ids} },
            "$name: prompt tokens of '$case->{prompt}'");
        # a continuation that opens with a space: the reference drops it
        s/^ // for $got, my $ref = $case->{greedy_text};
        ok($sure > 0 && index($ref, $got) == 0,
            "$name: $sure tokens as the reference")
            or diag("got  $got\nwant $ref");
    }
    # a vocabulary with no byte pieces: an answer or a clean refusal
    $r = $t->post('/v1/completions', { model => $name, temperature => 0,
        prompt => "h\x{e9}llo \x{4e16}\x{754c}", max_tokens => 4 });
    ok($r->{status} == 200 || $r->{status} == 400, "$name: text outside: $r->{status}");
    $t->stop(engine => 'TERM') if $row != $files[-1];
}

$t->done;
